"""Names of models to folders: the model in the package, the published ones, any hub id, any folder.

Nothing is fetched unless asked: without `download`, a hub id must be in the local Hugging Face cache already.
"""

import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from neo.model.config import NeoConfig
from neo.suggestion import suggestion

BUNDLED = ("neo-demo",)
"""Models that come with the package."""

PUBLISHED = {
    **{
        f"NEO-{size}-{stage}": f"Paranioar/NEO1_0-{size}-{stage}"
        for size in ("2B", "9B")
        for stage in ("PT", "MT", "SFT")
    },
    **{f"NEO-ov-{size}-SFT": f"Paranioar/NEO1_5-{size}-SFT" for size in ("2B", "9B")},
}
"""Published models and their hub ids."""

ADAPTER_CONFIG = "adapter_config.json"
"""What peft's adapters have in place of config.json."""
CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.md"]
"""What is downloaded of a hub id: no pickles, no code."""


def resolve(name: str | Path, download: bool = False) -> Path:
    """The folder of a model.

    Args:
        name: a name of `BUNDLED` or `PUBLISHED` (upper or lower case), a hub id or a folder.
        download: fetch a hub id where it is not in the local cache yet.

    Raises:
        ValueError: the name is unknown, or the model is not on this machine.
    """
    known = {one.lower(): one for one in (*BUNDLED, *PUBLISHED)}.get(str(name).lower())
    if known in BUNDLED:
        return _checkpoint(CHECKPOINTS / known, f"{known} is missing from this installation: no config.json")
    if known:
        return _hub_folder(PUBLISHED[known], known, download)
    folder = Path(name).expanduser()
    if not str(name) or len(folder.name) > 255:
        raise ValueError(f"{str(name)[:40]!r} is no name of a model: give one, a hub id (owner/name) or a folder")
    if folder.is_dir():
        return _checkpoint(folder, f"{folder}: this is not a checkpoint folder: no config.json")
    if folder.exists():
        raise ValueError(f"{folder}: this is a file; give the folder of a checkpoint")
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", str(name)):
        try:
            return _hub_folder(str(name), str(name), download)
        except ValueError as error:
            if not download and folder.parent.is_dir():  # runs/mine rather than owner/name
                raise ValueError(f"{name}: there is no such folder in {folder.parent}") from error
            raise
    if "/" in str(name) or "\\" in str(name):
        raise ValueError(f"{name}: there is no such folder")
    choices = [*BUNDLED, *PUBLISHED]
    raise ValueError(
        f"unknown model {name!r}, and no folder of that name is here{suggestion(name, choices)}; a name, a hub id "
        "(owner/name) or a folder will do"
    )


def new_folder(output: str | Path) -> Path:
    """A folder to write a model into.

    Raises:
        ValueError: there is something in it already.
    """
    folder = Path(output).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: there is something here already; give a new or empty folder as output")
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """The raw `config.json` of a NEO checkpoint.

    Raises:
        ValueError: it is not JSON, not a NEO's, or a field of it makes no sense.
    """
    config = read_json(folder / "config.json")
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "neo_chat":
        hint = "; neo init grows a NEO from it" if kind == "qwen3" else ""
        raise ValueError(f"{folder}: model_type is {kind!r}, not 'neo_chat', so this is not a NEO{hint}")
    try:
        NeoConfig.from_dict(dict(config))
    except StrictDataclassError as error:
        raise ValueError(f"{folder / 'config.json'}: {' '.join(str(error).split())}") from error
    return config


def read_json(file: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: not a whole JSON file ({error})") from error


def _checkpoint(folder: Path, complaint: str) -> Path:
    if not (folder / "config.json").is_file():
        if (folder / ADAPTER_CONFIG).is_file():
            base = read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
            raise ValueError(
                f"{folder}: this is an adapter for {base} and no model by itself; name {base} as the model and this "
                "folder as its adapter (--adapter, or adapter= in Python)"
            )
        if saved := sorted([*folder.glob("step-*"), *folder.glob("checkpoints/step-*")]):
            raise ValueError(
                f"{folder}: the checkpoints of a training run and no finished model; make a model of one of them with "
                f"neo export --model {saved[-1]} --output FOLDER"
            )
        raise ValueError(f"{complaint} in {folder}" if str(folder) not in complaint else complaint)
    return folder


def _hub_folder(hub_id: str, name: str, download: bool) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(hub_id, local_files_only=not download, allow_patterns=FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        if download:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"{name}: cannot download {hub_id} from the Hugging Face hub ({reason})") from error
        places = "" if name in PUBLISHED else ", as a folder or from the hub"
        raise ValueError(
            f"{name} is not on this machine{places}: fetch it with 'hf download {hub_id}' (into "
            f"{constants.HF_HUB_CACHE}) or with --download (download=True in Python), or give the folder "
            "that holds it"
        ) from error
    return _checkpoint(folder, f"{name}: the download of {hub_id} is not whole: no config.json")
