"""The QR code, read by another library than the one that draws it."""

from io import BytesIO
from random import Random

import pytest
import zxingcpp
from flask import Flask
from PIL import Image
from qrcode.constants import ERROR_CORRECT_M
from qrcode.main import QRCode

from portal.provisioning import qr

TOKEN = "tJ9-_" * 8 + "abc"  # as long as a real one


@pytest.mark.parametrize(
    "host", ["https://p.io", "https://portal.example.com", "https://" + "long." * 20 + "example.com:8443"]
)
def test_the_code_is_readable_with_a_margin_and_equal_modules(host: str) -> None:
    address = f"{host}/provision/{TOKEN}"
    picture = Image.open(BytesIO(qr.qr_code_png(address)))
    [code] = zxingcpp.read_barcodes(picture)
    assert code.text == address
    assert (code.format, code.ec_level) == (zxingcpp.BarcodeFormat.QRCode, "M")
    assert picture.mode == "1"
    assert 240 <= picture.width == picture.height <= 300
    corner = code.position.top_left
    row = [picture.getpixel((x, corner.y)) for x in range(picture.width)]
    module = row.index(255, corner.x) - corner.x  # as wide as the first finder pattern, which is seven modules
    assert module % 7 == 0
    assert corner.x == corner.y == module // 7 * 4
    assert picture.width % (module // 7) == 0


@pytest.mark.parametrize("host", ["https://p.io", "https://portal.example.com", "https://bücher.example"])
def test_each_code_is_that_of_the_library(host: str) -> None:
    for number in range(20):
        url = f"{host}/provision/{Random(number).randbytes(32).hex()[:43]}"
        drawn = QRCode(None, ERROR_CORRECT_M, border=qr.QUIET_ZONE, mask_pattern=qr.MASK_PATTERN)
        drawn.add_data(url, optimize=0)
        drawn.make()
        expected = [[255 * (not dark) for dark in row] for row in drawn.get_matrix()]
        assert qr.qr_code_png(url) == qr.provisioning_qr_code_png(url)
        picture = Image.open(BytesIO(qr.qr_code_png(url)))
        size, module = len(expected), picture.width // len(expected)
        assert picture.size == (size * module, size * module)
        seen = [[picture.getpixel((x * module, y * module)) for x in range(size)] for y in range(size)]
        assert seen == expected


def test_the_url_is_the_portals(app: Flask) -> None:
    with app.app_context():
        assert qr.provisioning_url(TOKEN) == f"http://portal.test/provision/{TOKEN}"
