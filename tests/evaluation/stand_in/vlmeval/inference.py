"""Asks a model and writes its answers into a file."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any


def infer_data_job(
    model: Any,
    work_dir: str,
    model_name: str,
    dataset: Any,
    verbose: bool = False,
    api_nproc: int = 4,
    ignore_failed: bool = False,
    use_vllm: bool = False,
) -> Any:
    assert model.is_api
    model.set_dump_image(dataset.dump_image)
    data, name = dataset.data, dataset.dataset_name
    rows = [data.iloc[number] for number in range(len(data))]
    if model.use_custom_prompt(name):
        messages = [model.build_prompt(row, dataset=name) for row in rows]
    else:
        messages = [dataset.build_prompt(row) for row in rows]
    answers = {}

    def ask(number: int) -> None:
        try:
            answers[number] = model.generate(message=messages[number], dataset=name)
        except Exception:  # noqa: BLE001 - as VLMEvalKit, which prints it and goes on
            return

    with ThreadPoolExecutor(api_nproc) as pool:
        list(pool.map(ask, range(len(rows))))
    assert len(answers) == len(rows)
    data["prediction"] = [answers[number] for number in range(len(rows))]
    data.to_csv(f"{work_dir}/{model_name}_{name}.tsv", sep="\t", index=False)
    return model
