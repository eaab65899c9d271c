"""The network's work alone, against which training and prediction are held."""

import torch

from models.inference import forward
from models.quality_net import QualityNet
from training.loop import WEIGHT_DECAY
from training.muon import Muon


class BareNetwork:
    """A network that trains on and answers random pixels, which are on its device already."""

    def __init__(
        self, model: QualityNet, image_size: int, most_images: int, amp: bool, lr: float = 1e-3
    ):
        self.model = model
        self.device = next(model.parameters()).device
        self._amp = amp
        self._optimizer = Muon(model, lr, WEIGHT_DECAY)
        shape = (most_images, 3, image_size, image_size)
        self._pixels = torch.randint(256, shape, dtype=torch.uint8, device=self.device)

    def step(self, size: int) -> None:
        """Do a forward, a backward and an optimizer's step on so many images."""
        self._optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._amp):
            output = self.model.train()(self._pixels[:size])
        loss = output.quality.mean() + output.embedding.mean()
        if output.type_logits is not None:
            loss = loss + output.type_logits.mean()
        loss.backward()
        self._optimizer.step()

    def evaluate(self, size: int) -> None:
        """Answer so many images as validation does."""
        forward(self.model, self._pixels[:size])

    @torch.no_grad()
    def forward_in_training_mode(self, size: int) -> None:
        """Answer so many images as measuring batch-norm statistics does."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._amp):
            self.model.train()(self._pixels[:size])
