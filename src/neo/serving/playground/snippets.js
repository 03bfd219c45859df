// A request as a program that asks it again. The key is named, not shown.

export function asCurl(address, body) {
  return `curl -sN ${address}chat/completions -H 'Content-Type: application/json' \\
  -H "Authorization: Bearer \${NEO_API_KEY:-none}" -d @- <<'END'
${JSON.stringify({ ...body, stream: true }, null, 2)}
END
`;
}

export function asPython(address, body) {
  // Names, numbers, texts and lists of them are written alike in JSON and in Python.
  return `import os

from openai import OpenAI

client = OpenAI(base_url="${address}", api_key=os.environ.get("NEO_API_KEY", "none"))
request = ${JSON.stringify(body, null, 4)}
for chunk in client.chat.completions.create(**request, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
`;
}
