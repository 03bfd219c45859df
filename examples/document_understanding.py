"""A receipt as JSON that keeps to a schema, whatever the model says.

python examples/document_understanding.py [PICTURE [MODEL]]

The schema holds the form, the model has to read: neo-demo was trained on drawn receipts of this kind, finds the store
and gets most of the names and prices wrong; real receipts and forms need NEO-2B-SFT or NEO-9B-SFT. Needs the
extra `guided`.
"""

import json
import sys
from pathlib import Path

import neo

RECEIPT = str(Path(__file__).parent / "images" / "receipt.png")
TEXT = {"type": "string", "maxLength": 24}
PRICE = {"type": "string", "pattern": "^[0-9]{1,4}\\.[0-9]{2}$"}
ITEM = {
    "type": "object",
    "properties": {"name": TEXT, "price": PRICE},
    "required": ["name", "price"],
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "properties": {"store": TEXT, "items": {"type": "array", "items": ITEM, "maxItems": 8}, "total": PRICE},
    "required": ["store", "items", "total"],
    "additionalProperties": False,
}


def main(picture: str = RECEIPT, name: str = "neo-demo") -> None:
    """Print the JSON, and whether the prices add up to the total: a check that needs no second reader."""
    answer = neo.load_model(name).generate(image=picture, text="Extract the receipt as JSON.", json_schema=SCHEMA)
    receipt = json.loads(answer)
    print(json.dumps(receipt, indent=2))
    cents = sum(round(100 * float(item["price"])) for item in receipt["items"])
    print(
        "the prices add up" if cents == round(100 * float(receipt["total"])) else "the prices do not add up: check it"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
