"""What answers cost: on a machine that is paid by the hour, or from an API that is paid by the token.

Prices are a YAML file that its user edits, as examples/prices.yaml:

    currency: USD
    machine: {name: one rented GPU, per_hour: 2.50}
    request: {input_tokens: 1100, output_tokens: 64}
    apis:
      large model: {per_million_input_tokens: 2.50, per_million_output_tokens: 10.00}

`machine` is what a model runs on that `apis` does not name. `request` is what APIs count for a request of the page
(`break_even`), pictures included.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from neo.evaluation.metrics.extras import needed
from neo.evaluation.scoring import Row

HOURS = 730
"""Of a month."""


@dataclass(frozen=True)
class ApiPrice:
    """Of a model that is paid by the token, in the file's currency for a million tokens."""

    per_million_input_tokens: float
    per_million_output_tokens: float

    def of(self, input_tokens: float, output_tokens: float) -> float:
        """A request."""
        paid = input_tokens * self.per_million_input_tokens + output_tokens * self.per_million_output_tokens
        return paid / 1e6


@dataclass(frozen=True)
class Prices:
    """A file of prices."""

    currency: str
    machine: str
    per_hour: float
    apis: Mapping[str, ApiPrice]
    input_tokens: float
    output_tokens: float


def read_prices(path: str | Path) -> Prices:
    """Read a file of prices.

    Raises:
        ValueError: it cannot be read, or a price is missing or no number.
    """
    path = Path(path).expanduser()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: the prices cannot be read ({' '.join(str(error).split())})") from error
    parts: dict[str, dict[str, Any]] = {}
    for name in ("machine", "request", "apis"):
        if not isinstance(content, dict) or not isinstance(content.get(name), dict):
            raise ValueError(
                f"{path}: '{name}' must be there, with names and numbers below it; see examples/prices.yaml"
            )
        parts[name] = content[name]
    apis = {}
    for name, api in parts["apis"].items():
        kinds = ("per_million_input_tokens", "per_million_output_tokens")
        apis[str(name)] = ApiPrice(*(_amount(api, kind, f"{path}: apis, {name}") for kind in kinds))
    return Prices(
        currency=str(content.get("currency", "USD")),
        machine=str(parts["machine"].get("name", "machine")),
        per_hour=_amount(parts["machine"], "per_hour", f"{path}: machine", above_0=True),
        apis=apis,
        input_tokens=_amount(parts["request"], "input_tokens", f"{path}: request"),
        output_tokens=_amount(parts["request"], "output_tokens", f"{path}: request"),
    )


def api_price(model: str, prices: Prices) -> ApiPrice | None:
    """A model's price by the token; None for one that runs on the machine.

    Args:
        model: as the prices name it; behind "openai:" by what stands behind the #.
        prices: with those of APIs.

    Raises:
        ValueError: it is behind "openai:" and has no price: whose machine answers there is not known.
    """
    served = model.startswith("openai:")
    price = prices.apis.get(model.partition("#")[2] if served else model)
    if served and price is None:
        raise ValueError(f"{model}: the prices' 'apis' do not name this model; name it there as behind the #")
    return price


def cost(rows: Sequence[Row], model: str, prices: Prices) -> dict[str, Any]:
    """What 1 000 of the questions cost: by tokens where prices name the model, else by the machine's time.

    Raises:
        ValueError: as `api_price`, or the model is paid by the token, and its tokens are not known.
    """
    price = api_price(model, prices)
    if price is None:
        seconds = sum(row["machine_seconds"] for row in rows) / len(rows)
        return {
            "per_1000": 1000 * seconds / 3600 * prices.per_hour,
            "currency": prices.currency,
            "price": f"{seconds:.3g} s each on {prices.machine} at {prices.per_hour:g} an hour",
        }
    counts = [(row["prompt_tokens"], row["new_tokens"]) for row in rows]
    if any(None in pair for pair in counts):
        raise ValueError(f"{model}: it is paid by the token, but does not tell how many tokens its answers took")
    means = [sum(column) / len(rows) for column in zip(*counts, strict=True)]
    return {
        "per_1000": 1000 * price.of(means[0], means[1]),
        "currency": prices.currency,
        "price": f"{means[0]:.0f} tokens of a question and {means[1]:.0f} of an answer",
    }


def break_even(bench: Mapping[str, Any], prices: Prices) -> dict[str, Any]:
    """What requests cost on the machine that `neo bench --json` measured, and from which number on it is cheaper.

    Returns:
        `machine`: for each number of requests at the same time `requests_per_hour` and `per_1000` at full load; `apis`:
        by name `per_1000` and `break_even`, the requests a month from which on a machine rented all month costs less
        than the API, or None where the API is cheaper even than a machine at full load.

    Raises:
        ValueError: the measurements are not those of `neo bench --json`.
    """
    rows = _speeds(bench)
    for row in rows:
        row["per_1000"] = 1000 * prices.per_hour / row["requests_per_hour"]
    most = max(row["requests_per_hour"] for row in rows) * HOURS
    month = prices.per_hour * HOURS
    apis = {}
    for name, api in prices.apis.items():
        each = api.of(prices.input_tokens, prices.output_tokens)
        reached = each > 0 and month / each <= most
        apis[name] = {"per_1000": 1000 * each, "break_even": month / each if reached else None}
    return {
        "model": bench["model"],
        "currency": prices.currency,
        "machine_name": prices.machine,
        "per_hour": prices.per_hour,
        "per_month": month,
        "most_a_month": most,
        "machine": rows,
        "apis": apis,
    }


def _speeds(bench: Any) -> list[dict[str, Any]]:
    """The numbers of requests at the same time that were measured, each with its requests an hour."""
    if not (isinstance(bench, dict) and isinstance(bench.get("model"), str) and isinstance(bench.get("rows"), list)):
        raise ValueError("these are not the measurements that neo bench --json prints: 'model' or 'rows' is missing")
    if not bench["rows"]:
        raise ValueError("neo bench measured no batch size; there is nothing to compute costs from")
    new_tokens = _amount(bench, "new_tokens", above_0=True)
    rows = []
    for row in bench["rows"]:
        batch = _amount(row, "batch_size", "rows", above_0=True)
        seconds = _amount(row, "first_token_s", "rows") + new_tokens * _amount(row, "step_s", "rows", above_0=True)
        rows.append({"batch_size": row["batch_size"], "requests_per_hour": 3600 * batch / seconds})
    return rows


def cost_table(costs: Mapping[str, Any]) -> str:
    """`break_even` in Markdown."""
    currency = costs["currency"]
    lines = [
        f"# What 1 000 requests cost, {currency}\n",
        f"{costs['model']} on {costs['machine_name']} at {costs['per_hour']:g} {currency} an hour, at full load:\n",
        "| at the same time | requests an hour | 1 000 requests |\n|---:|---:|---:|",
    ]
    for row in costs["machine"]:
        lines.append(f"| {row['batch_size']} | {row['requests_per_hour']:,.0f} | {row['per_1000']:.4g} |")
    month, most = costs["per_month"], costs["most_a_month"]
    lines += [
        f"\nA machine rented all month costs {month:,.0f} {currency} and answers up to {most:,.0f} requests.",
        "An API costs more from so many requests a month on:\n",
        "| API | 1 000 requests | requests a month |\n|---|---:|---:|",
    ]
    for name, api in costs["apis"].items():
        start = "never" if api["break_even"] is None else f"{api['break_even']:,.0f}"
        lines.append(f"| {name} | {api['per_1000']:.4g} | {start} |")
    return "\n".join(lines) + "\n"


def draw_break_even(costs: Mapping[str, Any], path: Path) -> None:
    """Cost of a month by requests: a line for each API, steps for as many machines as are needed."""
    figure = needed("matplotlib.figure", "plots").Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    starts = [api["break_even"] for api in costs["apis"].values() if api["break_even"] is not None]
    most = max([*starts, costs["most_a_month"]]) * 2
    requests = np.geomspace(min([*starts, most]) / 30, most, 400)
    machines = np.ceil(requests / costs["most_a_month"])
    axes.plot(
        requests, machines * costs["per_month"], color="black", label=f"{costs['model']}, {costs['machine_name']}"
    )
    for name, api in costs["apis"].items():
        (line,) = axes.plot(requests, requests * api["per_1000"] / 1000, label=name)
        if api["break_even"] is not None:
            axes.plot(api["break_even"], costs["per_month"], "o", color=line.get_color())
    axes.set(xscale="log", yscale="log", xlabel="requests a month", ylabel=f"{costs['currency']} a month")
    axes.set_title("Cost of a month; dots: from here on the machine is cheaper")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def write_costs(bench: str | Path, prices: str | Path, folder: str | Path) -> dict[str, Any]:
    """The page of costs: `cost.json`, `cost.md` and `cost.png` in a folder; returns what `break_even` does.

    Args:
        bench: file that holds what `neo bench --json` printed.
        prices: file of prices.
        folder: to write to.

    Raises:
        ValueError: a file cannot be read, or is not what it should be.
    """
    try:
        measured = json.loads(Path(bench).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{bench}: what neo bench --json printed cannot be read ({error})") from error
    try:
        costs = break_even(measured, read_prices(prices))
    except ValueError as error:
        raise ValueError(f"{bench}: {error}" if not str(error).startswith(str(prices)) else str(error)) from error
    folder = Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder}: there can be no such folder ({error.strerror}); give another output") from error
    (folder / "cost.json").write_text(json.dumps(costs, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "cost.md").write_text(
        cost_table(costs) + "\n![Cost of a month by requests](cost.png)\n", encoding="utf-8"
    )
    draw_break_even(costs, folder / "cost.png")
    return costs


def _amount(part: Any, name: str, where: str = "", above_0: bool = False) -> float:
    value: Any = part.get(name) if isinstance(part, dict) else None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < float("inf") or (above_0 and not value):
        place, least = f"{where}: " if where else "", "above 0" if above_0 else "from 0 up"
        raise ValueError(f"{place}{name} must be a number {least}, not {value!r}")
    return float(value)
