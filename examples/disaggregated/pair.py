"""Asks a prefill instance to compute a prompt and a decode instance to answer it.

    python examples/disaggregated/pair.py http://HOST_P:8000/v1 http://HOST_D:8001/v1 [words of a prompt]

It does by hand what `cadre router --prefill ... --decode ...` does for every client.
"""

import sys
import uuid

from openai import OpenAI

prefill_url, decode_url = sys.argv[1:3]
prompt = " ".join(sys.argv[3:]) or (
    "Explain in detail how paged attention works in a server for transformers, with the care of the KV cache over several turns"
)
prefill = OpenAI(api_key="EMPTY", base_url=prefill_url, max_retries=0)
decode = OpenAI(api_key="EMPTY", base_url=decode_url, max_retries=0)
model = prefill.models.list().data[0].id

# Both sides are given one id, so that a log of either leads to the other.
headers = {"X-Request-Id": str(uuid.uuid4())}

# Prefill computes the prompt and one token, and keeps the prompt's keys and values for whoever fetches them.
first = prefill.completions.create(
    model=model,
    prompt=prompt,
    max_tokens=1,
    temperature=0,
    extra_body={
        "kv_transfer_params": {
            "do_remote_decode": True,
            "do_remote_prefill": False,
            "remote_engine_id": None,
            "remote_block_ids": None,
            "remote_host": None,
            "remote_port": None,
        }
    },
    extra_headers=headers,
)
print("prefill:", repr(first.choices[0].text), file=sys.stderr)

# Its answer says where they are. Decode takes the prompt from there as well: what stands here does not matter.
answer = decode.completions.create(
    model=model,
    prompt="This prompt is ignored during decode",
    max_tokens=150,
    temperature=0,
    extra_body={"kv_transfer_params": first.kv_transfer_params},
    extra_headers=headers,
)
print(answer.choices[0].text)
