"""What is done to pixels. Importing the package registers every distortion."""

import distortions.standard  # the default eight come first

# isort: split
import distortions.extra
import distortions.kadid
import distortions.kadid_tone_and_place  # noqa: F401
