import pytest

from neo.data.config import DataConfig, SourceConfig


def test_percent_in_name_or_path_is_a_share() -> None:
    sources = {
        "a%50": SourceConfig(path="a.json"),
        "b": SourceConfig(path="b.json%12.5"),
        "c": SourceConfig(path="100%.json"),
    }
    data = DataConfig(sources)
    assert {name: (source.path, source.sample) for name, source in data.sources.items()} == {
        "a": ("a.json", 0.5),
        "b": ("b.json", 0.125),
        "c": ("100%.json", 1.0),
    }


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sample": 0.0}, "sample=0.0 must be above 0"),
        ({"sample": 1.5}, "sample=1.5 must be above 0 and at most 1"),
        ({"path": "a.json%150"}, "sample=1.5"),
        ({"path": "a.json%50", "sample": 0.1}, "ends in %50 but sample=0.1 is given"),
        ({"max_epochs": 0}, "max_epochs=0 must be at least 1"),
        ({"mean_tokens": 0}, "mean_tokens=0 must be at least 1"),
    ],
)
def test_mistakes_in_a_source(fields: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SourceConfig(**{"path": "a.json", **fields})


def test_mistakes_in_names() -> None:
    with pytest.raises(ValueError, match=r"data\.sources has 'a' twice: %50 is not part of the name"):
        DataConfig({"a%50": SourceConfig(path="a.json"), "a": SourceConfig(path="b.json")})
    with pytest.raises(ValueError, match=r"sample=0\.0 must be above 0"):
        DataConfig({"a%0": SourceConfig(path="a.json")})
