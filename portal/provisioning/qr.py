"""The QR code: a one-time address as a picture."""

from functools import cache
from io import BytesIO

from PIL import Image
from qrcode.constants import ERROR_CORRECT_M
from qrcode.main import QRCode

from portal import config

LARGEST = 300  # pixels, each side; the smallest that comes out is 240
QUIET_ZONE = 4  # modules (ISO/IEC 18004, section 9.1)
MASK = 3  # any of the eight reads well, and trying them all takes three times as long


def address(token: str) -> str:
    """Return the address that the token opens: what the QR code holds."""
    return f"{config.current().portal_url}/provision/{token}"


def png(address: str) -> bytes:
    """Return the address as a QR code, black on white with its margin, each module the same number of pixels wide."""
    code = QRCode(_version(len(address)), ERROR_CORRECT_M, border=QUIET_ZONE, mask_pattern=MASK)
    code.add_data(address, optimize=0)
    code.make(fit=False)
    modules = code.get_matrix()
    size = len(modules)
    picture = Image.new("1", (size, size))
    picture.putdata([not dark for row in modules for dark in row])
    side = size * max(1, LARGEST // size)
    file = BytesIO()
    picture.resize((side, side), Image.Resampling.NEAREST).save(file, "PNG", optimize=True)
    return file.getvalue()


@cache
def _version(length: int) -> int:
    """Return the size that so many characters need. All tokens are of one length, and trying takes its time."""
    code = QRCode(error_correction=ERROR_CORRECT_M)
    code.add_data("x" * length, optimize=0)
    version: int = code.best_fit()
    return version
