"""Pictures: a real PNG of the size asked for that shows the prompt's text."""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from tollhouse_server.simulator.errors import JsonObject, invalid_argument

_EDGES = {"512": 512, "1K": 1024, "2K": 2048, "4K": 4096}
_RATIOS = ("1:1", "1:4", "1:8", "2:3", "3:2", "3:4", "4:1", "4:3", "4:5", "5:4", "8:1", "9:16", "16:9", "21:9")
_LINES_SHOWN = 14
_COLUMNS = 32


@dataclass(frozen=True, slots=True)
class Picture:
    """What picture was asked for; `size` is Gemini's imageSize."""

    size: str
    width: int
    height: int

    @classmethod
    def read(cls, config: JsonObject) -> Picture:
        """Read `generationConfig.imageConfig`, or raise a 400."""
        wanted = config.get("imageConfig", {})
        size = str(wanted.get("imageSize", "1K")).upper()
        ratio = wanted.get("aspectRatio", "1:1")
        if size not in _EDGES:
            raise invalid_argument(f"Invalid image size {size!r}; supported are 512, 1K, 2K and 4K.")
        if ratio not in _RATIOS:
            raise invalid_argument(f"aspect_ratio must be one of {', '.join(_RATIOS)}.")
        across, down = (int(side) for side in ratio.split(":"))
        edge = _EDGES[size]
        return cls(size, edge * across // max(across, down), edge * down // max(across, down))


def draw_png(picture: Picture, text: str, seed: int) -> bytes:
    """Draw the text on a coloured ground; the whole text is in the PNG's `prompt` field too."""
    # Two colours from a palette: a 4K picture stays quick to make and small to send.
    image = Image.new("P", (picture.width, picture.height), 0)
    image.putpalette([*_ground(seed), 255, 255, 255])
    font = ImageFont.load_default(size=max(10, min(picture.width, picture.height) // 20))
    lines = textwrap.wrap(text, _COLUMNS)[:_LINES_SHOWN]
    margin = picture.width // 16
    ImageDraw.Draw(image).multiline_text((margin, margin), "\n".join(lines), fill=1, font=font)
    note = PngImagePlugin.PngInfo()
    note.add_itxt("prompt", text)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=note, compress_level=1)
    return buffer.getvalue()


def _ground(seed: int) -> tuple[int, int, int]:
    """Give a dark colour, on which white text reads."""
    return (seed & 0x7F, seed >> 8 & 0x7F, seed >> 16 & 0x7F)
