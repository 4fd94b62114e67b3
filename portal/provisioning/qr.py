"""The QR code: a one-time link as an image."""

from functools import lru_cache
from io import BytesIO

from PIL import Image
from qrcode.constants import ERROR_CORRECT_M
from qrcode.main import QRCode
from qrcode.util import MODE_8BIT_BYTE, QRData

from portal import config

MAX_SIDE = 300  # pixels; the actual size is at least 240
QUIET_ZONE = 4  # modules (ISO/IEC 18004, section 9.1)
MASK_PATTERN = 3  # all eight are readable, and choosing the best takes three times as long


def provisioning_url(token: str) -> str:
    """Return the one-time link with this token, which is the content of the QR code."""
    return f"{config.current().portal_url}/provision/{token}"


def qr_code_png(text: str) -> bytes:
    """Return the QR code of a text, black on white with a margin, with modules of equal size."""
    return _png(_Codes(text.encode()), text)


def provisioning_qr_code_png(url: str) -> bytes:
    """Return the QR code of a one-time link as `qr_code_png` does, in a third of the time."""
    path, slash, token = url.rpartition("/")
    return _png(_codes_like(f"{path}{slash}{'x' * len(token)}".encode()), url)


def _png(codes: "_Codes", text: str) -> bytes:
    size, modules = codes.size, codes.modules(text.encode())
    image = Image.frombytes("1", (size, size), modules.to_bytes(size * codes.row_bytes, "big"))
    side = size * max(1, MAX_SIDE // size)
    file = BytesIO()
    image.resize((side, side), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


class _Codes:
    """The QR codes of texts that are as long as another one, made from its code.

    Their version and their mask are the same, and error correction is linear (ISO/IEC 18004, section 7.5): a bit of
    the text always changes the same modules, whatever the rest of the text is. `qrcode` shows which, once for each bit
    in a process.
    """

    def __init__(self, text: bytes) -> None:
        self._text = text
        code = QRCode(error_correction=ERROR_CORRECT_M)
        code.add_data(QRData(text, mode=MODE_8BIT_BYTE))
        self._version = code.best_fit()
        self.size = 4 * self._version + 17 + 2 * QUIET_ZONE  # modules, with the margin
        self.row_bytes = (self.size + 7) // 8
        self._modules = self._draw(text)
        self._changed_by: dict[tuple[int, int], int] = {}  # by the place of a byte, and the bits that differ there

    def modules(self, text: bytes) -> int:
        """Return the bits of the modules, row by row: each row has whole bytes, and light is 1."""
        modules = self._modules
        for place, (byte, other) in enumerate(zip(text, self._text, strict=True)):
            if byte != other:
                modules ^= self._changes(place, byte ^ other)
        return modules

    def _changes(self, place: int, bits: int) -> int:
        """Return the modules that change if these bits of a byte do."""
        changes = self._changed_by.get((place, bits))
        if changes is None:
            lowest = bits & -bits
            if bits == lowest:
                text = bytearray(self._text)
                text[place] ^= bits
                changes = self._modules ^ self._draw(bytes(text))
            else:
                changes = self._changes(place, lowest) ^ self._changes(place, bits ^ lowest)
            self._changed_by[place, bits] = changes
        return changes

    def _draw(self, text: bytes) -> int:
        code = QRCode(self._version, ERROR_CORRECT_M, border=QUIET_ZONE, mask_pattern=MASK_PATTERN)
        code.add_data(QRData(text, mode=MODE_8BIT_BYTE))
        code.make(fit=False)
        padding = "1" * (8 * self.row_bytes - self.size)
        rows = ("".join("01"[not dark] for dark in row) + padding for row in code.get_matrix())
        return int("".join(rows), 2)


_codes_like = lru_cache(maxsize=8)(_Codes)
