"""What one writes in ten minutes: a server that answers one request at a time (see benchmarks/serving.py).

python benchmarks/naive_server.py MODEL PORT
"""

import json
import sys
from base64 import b64decode

from flask import Flask, Response, request

import neo

app = Flask(__name__)
model = neo.load_model(sys.argv[1])


@app.get("/health")
def health():
    return {"status": "ok"}


@app.post("/v1/chat/completions")
def chat():
    picture, question = request.json["messages"][-1]["content"]
    image = b64decode(picture["image_url"]["url"].partition(",")[2])
    answer = model.generate(image=image, text=question["text"], max_new_tokens=request.json["max_tokens"])
    chunk = {"choices": [{"delta": {"content": answer}, "finish_reason": "stop"}]}
    return Response(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n", mimetype="text/event-stream")


app.run(port=int(sys.argv[2]), threaded=False)
