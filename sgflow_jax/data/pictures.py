"""Makes images of any kind and size squares of one size and number of channels, or arrays in their own size."""

import numpy as np
from PIL import Image

CHANNELS = (1, 3)
_GREY = ("1", "L", "LA", "La")  # Pillow's modes of images without colour, and all that begin with I


def fitted(images: np.ndarray, size: int, channels: int) -> np.ndarray:
    """Crops the largest central square and resizes it: uint8 [n, H, W, c] -> uint8 [n, size, size, channels].

    c: 1 (grey), 3 (RGB) or 4 (RGBA). channels: 1 or 3. Images that already have the shape are returned as they are.
    """
    if images.shape[1:] == (size, size, channels):
        return images
    return np.stack(
        [
            square(Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image), size, channels)
            for image in images
        ]
    )


def square(image: Image.Image, size: int, channels: int) -> np.ndarray:
    """One decoded image as uint8 [size, size, channels]: its channels first, then crop, then size.

    Transparent parts become white. Where the square is a whole number of times as large as wanted, each pixel is the
    mean of a square of pixels, rounded; else Pillow resizes (Lanczos, antialiased).
    """
    image = _converted(image, channels)
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    image = image.crop((left, top, left + side, top + side))
    if side != size and side % size:
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    pixels = np.asarray(image).reshape(*image.size[::-1], channels)
    factor = len(pixels) // size
    if factor == 1:
        return pixels
    sums = pixels.reshape(size, factor, size, factor, channels).sum((1, 3), dtype=np.int64)
    return ((2 * sums + factor**2) // (2 * factor**2)).astype(np.uint8)


def unaltered(image: Image.Image) -> np.ndarray:
    """One decoded image in its own size, uint8 [H, W, 1] for a grey image and [H, W, 3] for any other. Transparent
    parts become white."""
    channels = 1 if image.mode in _GREY or image.mode.startswith("I") else 3
    return np.asarray(_converted(image, channels)).reshape(*image.size[::-1], channels)


def _converted(image: Image.Image, channels: int) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip
        image = Image.fromarray((np.asarray(image).astype(np.int64) // 257).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert({1: "L", 3: "RGB"}[channels])
