"""How full packed rows are and what packing them costs, against taking documents as they come.

    python benchmarks/packing.py
    python benchmarks/packing.py --max-seq-length 8192 --median 1600 --save

Lengths are drawn log-normal and capped at a row's length. `one a row` is padding without packing. `as they come`
puts the next document into the row if it fits and begins a new row if not. The rest is `neo.data.packing`, by rows
of lookahead. Times are processor time of one thread, best of three; nothing is read or encoded.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
from report import make_parser, processor, save
from rich.console import Console
from rich.table import Table

from neo.data.packing import Measured, Packer, Row

LOOKAHEADS = (8, 16, 32, 64, 128)


def as_they_come(documents: Sequence[Measured], room: int) -> list[Row]:
    """Rows of consecutive documents."""
    rows: list[Row] = [[]]
    left = room
    for document in documents:
        if len(document) > left:
            rows.append([])
            left = room
        rows[-1].append(document)
        left -= len(document)
    return rows


def measure(pack: Callable[[], Sequence[Row]], documents: Sequence[Measured], room: int) -> dict[str, float]:
    """Fill, rows and speed of a way to pack; every document must be there once."""
    times = []
    for _ in range(3):
        start = time.process_time()
        rows = pack()
        times.append(time.process_time() - start)
    assert sorted(one.index for row in rows for one in row) == [one.index for one in documents]
    fill = sum(map(len, documents)) / (len(rows) * room)
    return {"fill": fill, "rows": len(rows), "documents_per_second": len(documents) / min(times)}


def main() -> None:
    parser = make_parser(__doc__, "packing_cpu")
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--max-seq-length", type=int, default=16_384)
    parser.add_argument("--median", type=float, default=600)
    parser.add_argument("--sigma", type=float, default=1.0)
    options = parser.parse_args()
    room = options.max_seq_length
    drawn = np.random.default_rng(0).lognormal(np.log(options.median), options.sigma, options.documents)
    documents = [Measured(k, "", int(length)) for k, length in enumerate(drawn.clip(1, room))]
    ways: dict[str, Callable[[], Sequence[Row]]] = {
        "one a row": lambda: [[one] for one in documents],
        "as they come": lambda: as_they_come(documents, room),
    }
    for lookahead in LOOKAHEADS:
        ways[f"best fit over {lookahead} rows"] = lambda rows=lookahead: list(Packer(room, 1, rows).rows(documents))
    results = [{"way": way} | measure(pack, documents, room) for way, pack in ways.items()]
    lengths = f"log-normal (median {options.median:g}, sigma {options.sigma:g})"
    about = f"{len(documents):,} documents, {lengths}, rows of {room:,}"
    table = Table("packing", "fill", "rows", "documents/s", title=f"{about}; {processor()}")
    for row in results:
        speed = f"{row['documents_per_second']:,.0f}"
        table.add_row(str(row["way"]), f"{row['fill']:.2%}", f"{row['rows']:,}", speed)
    Console().print(table)
    if options.save:
        settings = {name: value for name, value in vars(options).items() if name != "save"}
        save("packing_cpu", {**settings, "rows": results})


if __name__ == "__main__":
    main()
