"""Metrics by name; `metric.py` says what one is, the other files have them by kind.

`accuracy` is none of these but each record's own: its field `metric`, or else `choice` where it has choices, or else
`match`.
"""

from collections.abc import Iterable
from functools import partial

from neo.evaluation.metrics import boxes, captions, choice, documents, fields, text, vqa
from neo.evaluation.metrics.metric import Case, Metric, any_of, each
from neo.suggestion import suggestion

__all__ = ["ACCURACY", "MEASURES", "METRICS", "Case", "Metric", "check_names"]

ACCURACY = "accuracy"
MEASURES = {
    "latency": "seconds to the first token and to the end of an answer: median and 95th percentile",
    "memory": "most bytes taken: of the GPU, or of the process on CPU",
}
"""What else can be asked for beside metrics of answers."""
METRICS: dict[str, Metric] = {
    "exact": Metric("equal to an expected text", any_of(text.exact)),
    "match": Metric("equal up to case, spaces and a final full stop; JSON by its content", any_of(text.match)),
    "choice": Metric("the right one of several choices, told by letter or text", each(choice.choice)),
    "contains": Metric("holds an expected text, as OCRBench counts", any_of(text.contains)),
    "yes_no": Metric(
        "yes or no, as POPE counts",
        text.yes_no_counts,
        more={"f1": text.f1, "precision": text.precision, "recall": text.recall, "said_yes": text.said_yes},
    ),
    "vqa": Metric("agreement with ten people, as VQA and TextVQA count", each(vqa.vqa)),
    "anls": Metric("similarity by edits, as DocVQA and InfographicVQA count", any_of(documents.anls)),
    "relaxed": Metric("numbers within 5 %, texts equal, as ChartQA counts", any_of(documents.relaxed)),
    "json": Metric(
        "F1 of the fields of JSON", fields.json_counts, more={"is_json": fields.is_json, "valid": fields.is_valid}
    ),
    "iou": Metric("overlap of boxes", boxes.iou_counts, more={"found": boxes.found}),
    "cider": Metric("CIDEr-D of captions, 0 to 10", captions.cider_counts, share=False),
    "bleu": Metric(
        "BLEU of sentences, 0 to 100",
        captions.bleu_counts,
        captions.bleu,
        alone=partial(captions.bleu, effective_order=True),
        share=False,
    ),
    "cer": Metric("edits by expected characters", documents.error_counts(list), share=False, lower_is_better=True),
    "wer": Metric("edits by expected words", documents.error_counts(str.split), share=False, lower_is_better=True),
}


def check_names(names: Iterable[str], known: Iterable[str] = (ACCURACY, *METRICS, *MEASURES)) -> None:
    """See that there are such metrics.

    Raises:
        ValueError: one is not known.
    """
    known = list(known)
    for name in names:
        if name not in known:
            hint = suggestion(name, known) or f"; there are {', '.join(known)}"
            raise ValueError(f"there is no metric {name!r}{hint}")
