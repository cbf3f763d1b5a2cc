"""The plan of a run: seeds, variants, datasets, shards, and the seeds of random generators."""

import pytest

from ocd_bench import Dataset, Task, UsageError
from ocd_bench.runner.cells import (
    Variant,
    assign_datasets,
    cell_name,
    default_datasets,
    parse_device,
    parse_seeds,
    parse_sets,
    parse_shard,
    parse_variants,
)
from ocd_bench.seeds import derive


class Beads(Task):
    name = "beads"
    primary_metric = "accuracy"
    corruptions = ("dust", "rust")

    def datasets(self) -> tuple[Dataset, ...]:
        return Dataset("glass", embedded=True), Dataset("wood")


class Coins(Task):
    name = "coins"
    primary_metric = "accuracy"


def test_seeds() -> None:
    assert parse_seeds("3") == (0, 1, 2)
    assert parse_seeds("0,1,7") == (0, 1, 7)
    assert parse_seeds("7,") == (7,)
    for wrong in ("0", "-1", "x", "1,-2", ""):
        with pytest.raises(UsageError, match="--seeds"):
            parse_seeds(wrong)


def test_variants() -> None:
    task = Beads()
    assert parse_variants(None, task) == (Variant(),)
    assert parse_variants("none,rust:2", task) == (Variant(), Variant("rust", 2))
    assert parse_variants("all:5", task) == (Variant("dust", 5), Variant("rust", 5))
    assert Variant("rust", 2).label("glass") == "glass+rust-2"
    assert Variant().label("glass") == "glass"
    for wrong, message in (("rust", "severity"), ("rust:6", "severity"), ("rusty:1", "did you mean 'rust'")):
        with pytest.raises(UsageError, match=message):
            parse_variants(wrong, task)
    with pytest.raises(UsageError, match="defines no corruptions"):
        parse_variants("rust:1", Coins())
    with pytest.raises(UsageError, match="--corruption: empty"):
        parse_variants("", task)


def test_a_device() -> None:
    assert parse_device("auto") == ("auto", 0)
    assert parse_device("cuda") == ("cuda", 0)
    assert parse_device("cuda:3") == ("cuda", 3)
    for wrong in ("", "cdua", "cuda:", "cuda:x", "auto:1", "CPU"):
        with pytest.raises(UsageError, match="--device"):
            parse_device(wrong)


class Pearls(Beads):
    name = "pearls"
    corruptions = ("dust", "rust", "own_dent")
    corruption_sets = {"wear": ("dust", "rust"), "own": ("own_dent",)}
    renamed_corruptions = {"dent": "own_dent", "all": "own"}


def test_a_set_stands_for_its_kinds_and_old_names_tell_their_new_ones() -> None:
    task = Pearls()
    assert parse_variants("none,wear:5", task) == (Variant(), Variant("dust", 5), Variant("rust", 5))
    assert parse_variants("wear:5,dust:5,dust:3", task) == (Variant("dust", 5), Variant("rust", 5), Variant("dust", 3))
    assert parse_sets("none,wear:5,dust:3,own:1", task) == {
        "wear:5": (Variant("dust", 5), Variant("rust", 5)),
        "own:1": (Variant("own_dent", 1),),
    }
    assert parse_sets("all:2", Beads()) == {"all:2": (Variant("dust", 2), Variant("rust", 2))}
    for wrong, message in (
        ("dent:1", "'dent' is now called 'own_dent'"),
        ("all:1", "'all' is now called 'own'"),
        ("wears:1", "did you mean 'wear'"),
        ("wear", "severity of 1 to 5, for example wear:3"),
    ):
        with pytest.raises(UsageError, match=message):
            parse_variants(wrong, task)


def test_a_task_may_have_several_default_datasets() -> None:
    known = (Dataset("a"), Dataset("b", default=True), Dataset("c", default=True))
    assert default_datasets(known) == ("b", "c")
    assert default_datasets(known[:1]) == ("a",)


def test_datasets_go_to_the_tasks_that_list_them() -> None:
    both = [Beads(), Coins()]
    assert assign_datasets(None, both) == {"beads": ("glass",), "coins": ("default",)}
    assert assign_datasets("wood,default", both) == {"beads": ("wood",), "coins": ("default",)}
    assert assign_datasets("my-folder", [Beads()]) == {"beads": ("my-folder",)}
    with pytest.raises(UsageError, match="did you mean 'wood'"):
        assign_datasets("woods,default", both)
    with pytest.raises(UsageError, match="none of these belongs to task 'coins'"):
        assign_datasets("wood", both)
    with pytest.raises(UsageError, match="expected the name"):
        assign_datasets("../x", [Beads()])


def test_shards() -> None:
    assert parse_shard(None) == (0, 1)
    assert parse_shard("2/4") == (1, 4)
    for wrong in ("0/4", "5/4", "x", "1/"):
        with pytest.raises(UsageError, match="--shard"):
            parse_shard(wrong)


def test_cell_names_are_file_names() -> None:
    assert cell_name("images", "mnist+fog-3", "ocd-x5", 7) == "images-mnist+fog-3-ocd-x5-s7"


def test_every_part_of_a_seed_counts() -> None:
    seed = derive("images", "mnist", "ocd", 0, "noise")
    assert 0 <= seed < 2**63
    assert seed == derive("images", "mnist", "ocd", 0, "noise")
    others = {derive(*parts) for parts in (
        ("image", "smnist", "ocd", 0, "noise"), ("images", "mnist", "tent", 0, "noise"),
        ("images", "mnist", "ocd", 1, "noise"), ("images", "mnist", "ocd", 0, "order"),
    )}  # fmt: skip
    assert len(others | {seed}) == 5
