"""A packed row teaches exactly what its documents teach one by one."""

import torch
from tiny_checkpoint import make_checkpoint

from neo.data.collate import collate
from neo.data.mixture import Mixture
from neo.data.packing import Document
from neo.data.sources import SyntheticSource
from neo.data.stream import EncodedStream
from neo.model.loss import document_loss_weights
from neo.training.start import load


def test_loss_and_gradients_packed_and_unpacked(tmp_path) -> None:
    model, processor = load(make_checkpoint(tmp_path / "model"))
    source = SyntheticSource(families={"color": 2.0, "text": 1.0, "word": 1.0})
    stream = EncodedStream(Mixture([source], [1.0], 0), processor)
    documents = [document for k in range(5) if isinstance(document := stream[k], Document)]
    assert len(documents) == 5
    assert sum(len(document.image_grid_hw) for document in documents) > 1

    def learn(rows: list[list[Document]]) -> tuple[float, dict[str, torch.Tensor]]:
        inputs = collate(rows, max(sum(map(len, row)) for row in rows) + 3)
        weights = document_loss_weights(inputs["labels"], inputs["document_ids"])
        model.zero_grad()
        loss = model(**inputs, loss_weights=weights).loss
        loss.backward()
        return loss.item(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}

    packed, packed_gradients = learn([documents[:3], documents[3:]])
    single, single_gradients = learn([[document] for document in documents])
    assert abs(packed - single) < 1e-5
    for name, gradient in packed_gradients.items():
        torch.testing.assert_close(gradient, single_gradients[name], atol=1e-5, rtol=1e-4, msg=name)
