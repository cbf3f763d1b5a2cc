"""The sheet of pictures whose predicted class changed."""

import torch
from PIL import Image

from ocd_bench import Request, Splits
from ocd_bench_images.figures import COLOURS, FRAME, TILE
from ocd_bench_images.task import Images

REQUEST = Request("images", "digits")


def one_hot(answers: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(answers), 3).float()


def splits(count: int, channels: int = 1) -> Splits:
    part = (
        torch.linspace(0, 1, count).view(-1, 1, 1, 1).expand(-1, channels, 4, 4).clone(),
        torch.zeros(count, dtype=torch.long),
    )
    return Splits(part, part, part, extras={"classes": ("zéro", "one", "a class of a very long name")})


def test_corrected_spoilt_and_other_changes_are_framed_in_that_order(tmp_path):
    outputs = {"base": one_hot([0, 0, 1, 1, 2]), "ocd": one_hot([0, 1, 0, 2, 2])}
    (path,) = Images().figures(splits(5), outputs, REQUEST, tmp_path / "new")
    assert path == tmp_path / "new" / "changed-ocd.png"
    with Image.open(path) as sheet:
        step = TILE + 2 * FRAME + 8
        frames = [sheet.getpixel((9 + place * step, 33)) for place in range(4)]
        assert frames == [COLOURS["now right"], COLOURS["now wrong"], COLOURS["still wrong"], (255, 255, 255)]
        # The first tile is test picture 2 of five, grey 0.5.
        assert sheet.getpixel((8 + FRAME + TILE // 2, 32 + FRAME + TILE // 2)) == (128, 128, 128)


def test_without_changed_predictions_or_a_method_no_sheet_is_written(tmp_path):
    same = one_hot([0, 1, 2])
    assert Images().figures(splits(3), {"base": same, "ocd": same}, REQUEST, tmp_path) == ()
    assert Images().figures(splits(3), {"base": same}, REQUEST, tmp_path) == ()
    assert list(tmp_path.iterdir()) == []


def test_a_sheet_is_bounded_and_shows_every_group(tmp_path):
    count = 300
    outputs = {"base": one_hot([1] * 295 + [0] * 5), "ocd": one_hot([0] * 295 + [1] * 5)}
    (path,) = Images().figures(splits(count, channels=3), outputs, REQUEST, tmp_path)
    with Image.open(path) as sheet:
        assert sheet.size[1] < 1000
        colours = {
            sheet.getpixel((9 + place % 8 * (TILE + 2 * FRAME + 8), 33 + place // 8 * (TILE + 2 * FRAME + 50)))
            for place in range(32)
        }
        assert colours == {COLOURS["now right"], COLOURS["now wrong"]}
