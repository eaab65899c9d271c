"""What is done to pixels. Importing the package registers every distortion."""

import distortions.standard  # the default eight come first

# isort: split
import distortions.extra  # noqa: F401
