import pytest
import torch

from neo.model.positions import TEXT, number_images, thw_positions

IMAGE, START, END = 9, 7, 8


def ids(*parts: int | str) -> torch.Tensor:
    """Numbers stand for so many words, "4" for a picture of 4 tokens in its brackets."""
    sequence: list[int] = []
    for part in parts:
        sequence += [1] * part if isinstance(part, int) else [START, *[IMAGE] * int(part), END]
    return torch.tensor([sequence])


def positions(input_ids: torch.Tensor, grids: list[list[int]], documents: torch.Tensor | None = None) -> torch.Tensor:
    grid = torch.tensor(grids).view(-1, 2)
    return thw_positions(number_images(input_ids, grid.prod(-1), IMAGE), grid, documents)


def test_worked_example() -> None:
    """ARCHITECTURE: two words, a picture of 2 x 2 tokens, one word."""
    assert positions(ids(2, "4", 1), [[2, 2]])[:, 0].tolist() == [
        [0, 1, 2, 3, 3, 3, 3, 4, 5],
        [0, 0, 0, 0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 0, 1, 0, 0],
    ]


def test_a_picture_takes_one_step_however_large() -> None:
    t, h, w = positions(ids(1, "600", 1), [[20, 30]])[:, 0]
    assert t[-1].item() == 4
    assert (h.max().item(), w.max().item()) == (19, 29)


def test_adjacent_pictures_keep_their_own_step() -> None:
    t, h, _ = positions(ids("1", "2"), [[1, 1], [2, 1]])[:, 0]
    assert t.tolist() == [0, 1, 2, 3, 4, 4, 5]
    assert h.tolist() == [0, 0, 0, 0, 0, 1, 0]


def test_pictures_without_brackets_between_them_stay_apart() -> None:
    input_ids = torch.tensor([[1, IMAGE, IMAGE, IMAGE, 1]])
    assert number_images(input_ids, torch.tensor([1, 2]), IMAGE)[0].tolist() == [TEXT, 0, 1, 1, TEXT]
    assert positions(input_ids, [[1, 1], [1, 2]])[0, 0].tolist() == [0, 1, 2, 2, 3]


def test_positions_start_anew_in_each_document() -> None:
    input_ids = torch.cat([ids(2, "4", 1), ids(3), ids("2", 2)], dim=1)
    documents = torch.tensor([0] * 9 + [1] * 3 + [2] * 6)[None]
    packed = positions(input_ids, [[2, 2], [1, 2]], documents)
    alone = [positions(ids(2, "4", 1), [[2, 2]]), positions(ids(3), []), positions(ids("2", 2), [[1, 2]])]
    assert packed.equal(torch.cat(alone, dim=-1))


def test_left_padding_does_not_shift() -> None:
    input_ids = torch.cat([torch.zeros(1, 4, dtype=torch.long), ids(2, "4", 1)], dim=1)
    documents = torch.tensor([-1] * 4 + [0] * 9)[None]
    assert positions(input_ids, [[2, 2]], documents)[..., 4:].equal(positions(ids(2, "4", 1), [[2, 2]]))


def test_pictures_are_counted_row_by_row() -> None:
    rows = torch.cat([ids(2, "4", 1), ids("2", "1", 2)])
    image_ids = number_images(rows, torch.tensor([4, 2, 1]), IMAGE)
    assert image_ids.tolist() == [[-1, -1, -1, 0, 0, 0, 0, -1, -1], [-1, 1, 1, -1, -1, 2, -1, -1, -1]]


@pytest.mark.parametrize("tokens", [[3], [5], [2, 1], []])
def test_counts_that_differ_are_named(tokens: list[int]) -> None:
    with pytest.raises(ValueError, match=rf"holds 4 image tokens but the pictures give {sum(tokens)} "):
        number_images(ids(2, "4", 1), torch.tensor(tokens, dtype=torch.long), IMAGE)


def test_a_torn_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="picture 1 do not stand together"):
        number_images(ids("2", "3"), torch.tensor([1, 4]), IMAGE)
    with pytest.raises(ValueError, match="picture 0 do not stand together in one row"):
        number_images(torch.tensor([[1, IMAGE], [IMAGE, 1]]), torch.tensor([2]), IMAGE)


@pytest.mark.parametrize("tokens", [[2, 0, 3], [0, 2, 3], [2, 3, 0]])
def test_a_picture_without_tokens_is_refused(tokens: list[int]) -> None:
    with pytest.raises(ValueError, match="at least one image token"):
        number_images(ids("2", "3"), torch.tensor(tokens), IMAGE)
