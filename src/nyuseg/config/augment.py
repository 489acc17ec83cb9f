"""The section `augment` of a configuration: what is random about a training frame."""

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from nyuseg.config.values import Section


class Augment(Section):
    """Random changes in training; those of geometry are the same for image, depth and label."""

    working_size: tuple[PositiveInt, PositiveInt] | None = None
    """Height and width that training frames are fitted to before they are zoomed and cropped; null:
    data.size, at which frames are predicted."""

    zoom: tuple[PositiveFloat, PositiveFloat] | None = None
    """Smallest and largest zoom, such as [0.5, 2]; halving is as likely as doubling. null: none."""

    crop: tuple[PositiveInt, PositiveInt] | None = None
    """Height and width of the training input, cut out of the zoomed frame: multiples as data.size,
    at most the working size. null: the working size."""

    rare_crop: float = Field(0, ge=0, le=1)
    """Probability that the crop is laid around a pixel of a rare class: one of the frame's classes,
    drawn by the inverse of its share of the fold's training pixels."""

    zoom_depth: bool = False
    """Whether the depth, the input's and the depth head's, is divided by how much larger than in a
    prediction the frame is, since what is larger looks nearer (Eigen et al. 2014, arXiv 1406.2283);
    otherwise it stays as measured."""

    flip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip."""

    shift: float = Field(0.05, ge=0, lt=1)
    """Largest shift, as a part of the size."""

    scale: float = Field(0.1, ge=0, lt=1)
    """Largest enlargement or reduction, as a part of the size."""

    rotate: float = Field(5, ge=0, le=180)
    """Largest rotation, in degrees."""

    colour: float = Field(0, ge=0, le=1)
    """Strength of changed colours, in four of five images: at 1, brightness, contrast and
    saturation change by up to a half, the hue by up to a tenth of the circle."""

    blur: float = Field(0, ge=0, le=1)
    """Probability that the image is blurred, by a Gaussian of up to 2 pixels."""

    noise: float = Field(0, ge=0, le=1)
    """Probability of noise on the image, grey, with a standard deviation of 1 to 5 % of white."""

    copy_paste: float = Field(0, ge=0, le=1)
    """Probability that an object of another training frame of the fold, of a rare class as in
    rare_crop, is pasted in where it is nearer than what is there, with its own height and upward.
    """

    depth_holes: float = Field(0, ge=0, le=1)
    """Probability that up to 8 rectangles of the depth are missing, each up to a quarter of the
    height and width. This, depth_noise and depth_drop change the input, not what a depth head is
    to predict."""

    depth_noise: float = Field(0, ge=0)
    """Largest noise on the depth, as a multiple of a Kinect's own, which grows with the square of
    the distance: 1.4 mm at 1 m, 36 mm at 5 m. The channels height and upward keep what was
    measured."""

    depth_drop: float = Field(0, ge=0, le=1)
    """Probability that all depth is missing, so that the network also learns without."""

    @field_validator("zoom")
    @classmethod
    def _in_order(cls, zoom: tuple[float, float] | None) -> tuple[float, float] | None:
        if zoom and not 0.1 <= zoom[0] <= zoom[1] <= 10:
            raise ValueError("must be a smallest and a largest zoom between 0.1 and 10")
        return zoom

    @property
    def zooms(self) -> bool:
        """Whether frames go through working size, zoom and crop; otherwise they keep data.size."""
        return any((self.working_size, self.zoom, self.crop))

    @property
    def spoils_depth(self) -> bool:
        """Whether the network sees another depth than its depth head is to predict."""
        return any((self.depth_holes, self.depth_noise, self.depth_drop))
