"""From the bytes of an image file to a square RGB array: decoding rules and the named resize protocols."""

import functools
import io
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image, features

MAX_PIXELS = 2**26  # of a decoded or resized picture: 200 MB; headers of hostile files claim more
MODES = ("RGB", "L", "CMYK", "YCbCr", "P", "PA", "RGBA", "RGBX", "LA", "1")  # convert("RGB") keeps what one sees


class BadImageError(Exception):
    """An image that cannot become an array; the message is the reason, in a few words. Such an image is dropped."""


def versions() -> dict[str, str]:
    """The decoder that made the pixels."""
    turbo = features.version("libjpeg_turbo")
    return {"pillow": Image.__version__, "libjpeg": f"turbo {turbo}" if turbo else str(features.version("jpg"))}


def decode(content: bytes, name: str) -> tuple[Image.Image, list[str]]:
    """A JPEG or PNG as an RGB picture, and what is odd about it: "grayscale", "cmyk", "png_as_jpeg", "16_bit".

    EXIF is never applied, and JPEGs are never decoded at a reduced size (Pillow's ``draft``).

    Raises:
        BadImageError: not a JPEG or PNG, damaged, too large, or of a mode whose range of values is not known.
    """
    if not content:
        raise BadImageError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(content), formats=("JPEG", "PNG"))
            if picture.width * picture.height > MAX_PIXELS:
                raise BadImageError(f"{picture.width}x{picture.height} pixels are too many")
            return _to_rgb(picture), _oddities(picture, name)
    except (BadImageError, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        raise BadImageError("not a JPEG or PNG") from None
    except Exception as error:  # damaged bytes make Pillow raise nearly anything
        raise BadImageError(f"{type(error).__name__}: {error}".splitlines()[0]) from None


def _oddities(picture: Image.Image, name: str) -> list[str]:
    odd = []
    if picture.mode in ("L", "LA", "1") or picture.mode.startswith("I"):
        odd.append("grayscale")
    if picture.mode == "CMYK":
        odd.append("cmyk")
    if picture.mode.startswith("I"):
        odd.append("16_bit")
    if picture.format == "PNG" and not name.lower().endswith(".png"):
        odd.append("png_as_jpeg")
    return odd


def _to_rgb(picture: Image.Image) -> Image.Image:
    picture.load()
    if picture.mode.startswith("I;16"):  # convert("RGB") would clip these to white
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode not in MODES:
        raise BadImageError(f"mode {picture.mode} has no known range of values")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def adm(picture: Image.Image, size: int) -> Image.Image:
    """Guided diffusion's protocol (Dhariwal & Nichol 2021): BOX halvings, BICUBIC, centre crop."""
    while min(picture.size) >= 2 * size:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    scale = size / min(picture.size)
    width, height = round(picture.width * scale), round(picture.height * scale)
    return _crop(
        _resize(picture, width, height, Image.Resampling.BICUBIC), (width - size) // 2, (height - size) // 2, size
    )


def tv_bilinear(picture: Image.Image, size: int) -> Image.Image:
    """torchvision's ``Resize(size)``, antialiased bilinear, and ``CenterCrop(size)``."""
    short, long = sorted(picture.size)
    longer = int(size * long / short)
    width, height = (size, longer) if picture.width <= picture.height else (longer, size)
    left, upper = round((width - size) / 2), round((height - size) / 2)
    return _crop(_resize(picture, width, height, Image.Resampling.BILINEAR), left, upper, size)


def box_squash(picture: Image.Image, size: int) -> Image.Image:
    """The downsampled ImageNet of Chrabaszcz et al. 2017: BOX to a square, the aspect ratio not kept."""
    return picture.resize((size, size), Image.Resampling.BOX)


PROTOCOLS: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "adm": adm,
    "tv_bilinear": tv_bilinear,
    "box_squash": box_squash,
}


def _resize(picture: Image.Image, width: int, height: int, filter: Image.Resampling) -> Image.Image:
    if width * height > MAX_PIXELS:
        raise BadImageError(f"{picture.width}x{picture.height} is too thin: resized, it has {width}x{height} pixels")
    return picture.resize((width, height), filter)


def _crop(picture: Image.Image, left: int, upper: int, size: int) -> Image.Image:
    return picture.crop((left, upper, left + size, upper + size))


@functools.cache
def quick_adm() -> Callable[[Image.Image, int], Image.Image | np.ndarray]:
    """``adm`` as ``vqlib.data.quick`` compiles it; ``adm`` itself where that cannot be had, or gives another byte."""
    try:
        from vqlib.data import quick

        return functools.partial(quick.adm, reference=adm) if quick.equals(adm) else adm
    except Exception:  # whatever an old, broken or missing package raises, or a disk too full for compiled code
        return adm


def to_array(
    content: bytes | Image.Image, name: str, size: int, resize: str, quick: bool = False
) -> tuple[np.ndarray, list[str]]:
    """(size, size, 3) uint8, and what is odd about the file; an RGB picture is taken as it is. Raises BadImageError.

    With ``quick`` the same bytes come sooner, after some seconds for compiling.
    """
    picture, odd = (content, []) if isinstance(content, Image.Image) else decode(content, name)
    protocol = quick_adm() if quick and resize == "adm" else PROTOCOLS[resize]
    return np.asarray(protocol(picture, size)), odd
