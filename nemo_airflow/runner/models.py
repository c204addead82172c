"""Makes a folder that MLflow reads as a model, among the outputs of a job. Standard library only.

Such a folder has a file ``MLmodel`` (YAML, of which JSON is a part) with the model's flavors and signature, and files
with an input example; see "MLflow Models" in MLflow's documentation.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any, Dict, Optional, Tuple, Union

from nemo_airflow.runner import channel

MLMODEL = "MLmodel"

FOLDER = "models"
"""Folder of the outputs with a folder for each model."""

_EXAMPLE, _SERVING_EXAMPLE = "input_example.json", "serving_input_example.json"

_REFUSED_IN_NAMES = re.compile(r"[/:.%\"'\x00-\x1f]")

_PARTS = ("inputs", "outputs", "params")
_TYPES = frozenset(
    ("boolean", "integer", "long", "float", "double", "string", "binary", "datetime", "object", "array", "map", "any",
     "tensor")
)  # fmt: skip

_Json = Any


def log_model(
    path: Union[str, os.PathLike[str]],
    name: Optional[str] = None,
    *,
    signature: Optional[Mapping[str, Any]] = None,
    input_example: Optional[_Json] = None,
    flavors: Optional[Mapping[str, Mapping[str, Any]]] = None,
    metadata: Optional[Mapping[str, Any]] = None,
) -> None:
    """Logs a model of the run, for which MLflow need not be installed in the job. Does nothing outside a job.

    Its files are linked or copied among the job's outputs. When they are kept, the model is ready in MLflow, which
    reads its signature and input example.

    Args:
        path: The model's file or folder, or an artifact. A folder that MLflow has saved, with a file ``MLmodel``, is
            logged as it is.
        name: The model's name, without ``/ : . %`` and quotes; by default that of the file without its suffix.
        signature: Lists ``inputs``, ``outputs`` and ``params`` in MLflow's form, such as ``{"inputs": [{"name":
            "width", "type": "double"}]}``; or MLflow's own object.
        input_example: What can be given to the model: JSON, or an array or table with ``tolist`` or ``to_dict``.
        flavors: How to load the model, as ``flavors`` in ``MLmodel``. Paths in them are relative to the folder, or the
            name of the file.
        metadata: What else to say of the model: JSON.

    Raises:
        FileNotFoundError: The path does not exist.
        TypeError: The example, flavors or metadata are not JSON.
        ValueError: MLflow could not read the name or the signature; or the folder has a file ``MLmodel`` already, and
            something is given that would be in there.
    """
    source = os.path.abspath(os.fspath(path))
    if not os.path.exists(source):
        raise FileNotFoundError(f"log_model: {source} does not exist")
    name = os.path.basename(source).partition(".")[0] if name is None else name
    if not name or _REFUSED_IN_NAMES.search(name):
        raise ValueError(f"log_model: name={name!r} is no name for a model: MLflow allows no / : . % and quotes in it")
    is_whole = os.path.isfile(os.path.join(source, MLMODEL))
    if is_whole and not all(each is None for each in (signature, input_example, flavors, metadata)):
        raise ValueError(f"log_model: {source} has a file {MLMODEL}, which has the signature and the rest: give none")
    files = {} if is_whole else _describe(source, signature, input_example, flavors, metadata)
    if not channel.in_job():
        return
    folder = _free_folder(name)
    target = os.path.join(os.environ["NEMO_AIRFLOW_OUTPUT_DIR"], folder)
    if os.path.isdir(source):
        shutil.copytree(source, target, symlinks=True, copy_function=_link_or_copy, dirs_exist_ok=True)
    else:
        _link_or_copy(source, os.path.join(target, os.path.basename(source)))
    for file, text in files.items():
        with open(os.path.join(target, file), "w", encoding="utf-8") as out:
            out.write(text)
    channel.send("model", name=name, path=folder)


def _describe(
    source: str,
    signature: Optional[Mapping[str, Any]],
    example: Optional[_Json],
    flavors: Optional[Mapping[str, Mapping[str, Any]]],
    metadata: Optional[Mapping[str, Any]],
) -> Dict[str, str]:
    """Returns the texts of the files that make a model of a file or folder, by their names."""
    now = time.time()
    content: Dict[str, Any] = {
        "flavors": flavors or {"nemo_airflow": {"data": "." if os.path.isdir(source) else os.path.basename(source)}},
        "utc_time_created": f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1e6):06d}",
    }
    files: Dict[str, str] = {}
    if signature is not None:
        content["signature"] = _signature_texts(signature)
    if metadata is not None:
        content["metadata"] = metadata
    if example is not None:
        about, data, serving = _plain_example(example)
        files[_EXAMPLE], files[_SERVING_EXAMPLE] = _dumps(data, "input_example"), _dumps(serving, "input_example")
        content["saved_input_example_info"] = {
            "artifact_path": _EXAMPLE, "serving_input_path": _SERVING_EXAMPLE, **about
        }  # fmt: skip
    # Not in ASCII: YAML reads the two halves of a character's escape as two characters.
    files[MLMODEL] = _dumps(content, "flavors or metadata")
    return files


def _dumps(value: _Json, name: str) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2)
        text.encode()
        return text
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"log_model: {name} is not JSON: {error}") from None


def _signature_texts(signature: Any) -> Dict[str, Optional[str]]:
    """Returns a signature as it is in ``MLmodel``: each part a text of JSON.

    Raises:
        ValueError: It is not in MLflow's form.
    """
    given = signature.to_dict() if hasattr(signature, "to_dict") else signature
    if not isinstance(given, Mapping) or not set(given) <= set(_PARTS):
        raise ValueError(f"log_model: signature={signature!r} is not a dict with the lists {', '.join(_PARTS)}")
    texts: Dict[str, Optional[str]] = {}
    for name, part in given.items():
        columns = json.loads(part) if isinstance(part, str) else part
        if columns is None:
            continue
        if not isinstance(columns, Sequence) or not all(map(_is_column, columns)):
            raise ValueError(
                f"log_model: signature[{name!r}] is not a list of columns such as "
                '{"name": "width", "type": "double"}, or {"type": "tensor", "tensor-spec": {"dtype": "float32", '
                f'"shape": [-1, 64]}}}}; the types are {", ".join(sorted(_TYPES))}'
            )
        # MLflow needs a default of a parameter, None if it has none.
        columns = [{"default": None, **each} if name == "params" else each for each in columns]
        texts[name] = _dumps(columns, f"signature[{name!r}]")
    return texts


def _is_column(column: Any) -> bool:
    if not isinstance(column, Mapping) or column.get("type") not in _TYPES:
        return False
    if column["type"] != "tensor":
        return True
    spec = column.get("tensor-spec")
    return isinstance(spec, Mapping) and isinstance(spec.get("dtype"), str) and isinstance(spec.get("shape"), Sequence)


def _plain_example(example: Any) -> Tuple[Dict[str, str], _Json, _Json]:
    """Returns what MLflow calls the example, its JSON, and that of a request with it to a server of the model."""
    if hasattr(example, "columns") and hasattr(example, "to_dict"):
        table = example.to_dict(orient="split")
        data = {name: _plain(table[name]) for name in ("columns", "data")}
        return {"type": "dataframe", "pandas_orient": "split"}, data, {"dataframe_split": data}
    arrays = list(example.values()) if isinstance(example, Mapping) else [example]
    kind = "ndarray" if arrays and all(hasattr(each, "tolist") for each in arrays) else "json_object"
    data = _plain(example)
    return {"type": kind}, data, {"inputs": data}


def _plain(value: Any) -> _Json:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _free_folder(name: str) -> str:
    """Makes a new folder for a model, and returns its path in the outputs: several models may have one name."""
    parent = os.path.join(os.environ["NEMO_AIRFLOW_OUTPUT_DIR"], FOLDER)
    os.makedirs(parent, exist_ok=True)
    number = 1
    while True:
        own = name if number == 1 else f"{name}-{number}"
        try:
            os.mkdir(os.path.join(parent, own))
            return f"{FOLDER}/{own}"
        except FileExistsError:
            number += 1


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, target, follow_symlinks=False)
