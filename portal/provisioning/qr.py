"""The QR code: a one-time link as an image."""

from functools import cache
from io import BytesIO

from PIL import Image
from qrcode.constants import ERROR_CORRECT_M
from qrcode.main import QRCode

from portal import config

MAX_SIDE = 300  # pixels; the actual size is at least 240
QUIET_ZONE = 4  # modules (ISO/IEC 18004, section 9.1)
MASK_PATTERN = 3  # all eight are readable, and choosing the best takes three times as long


def provisioning_url(token: str) -> str:
    """Return the one-time link with this token, which is the content of the QR code."""
    return f"{config.current().portal_url}/provision/{token}"


def qr_code_png(text: str) -> bytes:
    """Return the QR code of a text, black on white with a margin, with modules of equal size."""
    code = QRCode(_qr_version(len(text)), ERROR_CORRECT_M, border=QUIET_ZONE, mask_pattern=MASK_PATTERN)
    code.add_data(text, optimize=0)
    code.make(fit=False)
    modules = code.get_matrix()
    size = len(modules)
    image = Image.new("1", (size, size))
    image.putdata([not dark for row in modules for dark in row])
    side = size * max(1, MAX_SIDE // size)
    file = BytesIO()
    image.resize((side, side), Image.Resampling.NEAREST).save(file, "PNG", optimize=True)
    return file.getvalue()


@cache
def _qr_version(length: int) -> int:
    """Return the QR code version for a text of this length. It is cached: all links have about the same length."""
    code = QRCode(error_correction=ERROR_CORRECT_M)
    code.add_data("x" * length, optimize=0)
    version: int = code.best_fit()
    return version
