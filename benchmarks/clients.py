"""Clients that people use, each against seventy serve: what of them works, counted.

usage: python benchmarks/clients.py [MODEL.gguf]

openai, ollama, litellm, langchain-openai, langchain-ollama and llm; one that is not installed is left out. Exits with
1 where something fails.
"""

import argparse
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

NAME = "small"
HELLO: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."}]
CITY = {
    "type": "object", "properties": {"city": {"enum": ["Bergen", "Oslo"]}}, "required": ["city"],
    "additionalProperties": False,
}  # fmt: skip
TOOL: Any = {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": CITY}}
Check = Callable[[str], None]
CHECKS: dict[str, list[Check]] = {}


def check(client: str) -> Callable[[Check], Check]:
    def add(one: Check) -> Check:
        CHECKS.setdefault(client, []).append(one)
        return one

    return add


def _city(arguments: str | dict[str, Any]) -> None:
    value = json.loads(arguments) if isinstance(arguments, str) else arguments
    assert value["city"] in ("Bergen", "Oslo"), arguments


def _openai(url: str) -> Any:
    import openai

    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


@check("openai")
def chat(url: str) -> None:
    with _openai(url) as client:
        answer = client.chat.completions.create(model=NAME, messages=HELLO, max_tokens=8)
        assert answer.choices[0].message.content and answer.usage.total_tokens


@check("openai")
def stream(url: str) -> None:
    with _openai(url) as client:
        options = {"model": NAME, "messages": HELLO, "max_tokens": 8, "stream_options": {"include_usage": True}}
        chunks = list(client.chat.completions.create(stream=True, **options))
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) and chunks[-1].usage


@check("openai")
def tool(url: str) -> None:
    with _openai(url) as client:
        options = {"model": NAME, "messages": HELLO, "tools": [TOOL], "tool_choice": "required", "max_tokens": 40}
        call = client.chat.completions.create(**options).choices[0].message.tool_calls[0]
        _city(call.function.arguments)
        result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
        turns = [*HELLO, {"role": "assistant", "tool_calls": [call.model_dump()]}, result]
        assert client.chat.completions.create(model=NAME, messages=turns, tools=[TOOL], max_tokens=8).choices


@check("openai")
def parsed(url: str) -> None:
    from pydantic import BaseModel

    class Answer(BaseModel):
        yes: bool

    with _openai(url) as client:
        answer = client.chat.completions.parse(model=NAME, messages=HELLO, response_format=Answer, max_tokens=30)
        assert answer.choices[0].message.parsed is not None


@check("openai")
def completion_models_and_errors(url: str) -> None:
    import openai

    with _openai(url) as client:
        assert client.completions.create(model=NAME, prompt="The capital of France is", max_tokens=4).choices[0].text
        assert [model.id for model in client.models.list()] == [NAME]
        with suppress(openai.BadRequestError):
            client.completions.create(model=NAME, prompt=[1] * 9000)
            raise AssertionError("a prompt that cannot fit is answered")


@check("openai")
def embeddings(url: str) -> None:
    with _openai(url) as client:
        vectors = client.embeddings.create(model=NAME, input=["one", "two"]).data
        assert len(vectors) == 2 and len(vectors[0].embedding) == len(vectors[1].embedding) > 1


def _ollama(url: str) -> Any:
    import ollama

    return ollama.Client(url)


@check("ollama")
def ollama_chat(url: str) -> None:
    client, options = _ollama(url), {"num_predict": 8}
    assert client.chat(NAME, HELLO, options=options).message.content
    assert "".join(part.message.content for part in client.chat(NAME, HELLO, options=options, stream=True))


@check("ollama")
def ollama_form(url: str) -> None:
    answer = _ollama(url).chat(NAME, HELLO, format=CITY, options={"num_predict": 40})
    _city(answer.message.content)


@check("ollama")
def ollama_generate_and_embed(url: str) -> None:
    client = _ollama(url)
    assert client.generate(NAME, "Once", options={"num_predict": 4}).response
    assert len(client.embed(NAME, ["one", "two"]).embeddings) == 2


@check("ollama")
def ollama_models(url: str) -> None:
    client = _ollama(url)
    assert client.list().models and client.show(NAME).modelinfo and client.ps().models


def _litellm() -> Any:
    os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    import litellm

    litellm.suppress_debug_info = True
    return litellm


@check("litellm")
def litellm_openai(url: str) -> None:
    options = {"model": f"openai/{NAME}", "api_base": f"{url}/v1", "api_key": "none", "max_tokens": 40}
    options["messages"] = HELLO
    completion = _litellm().completion
    assert completion(**options).choices[0].message.content
    assert "".join(chunk.choices[0].delta.content or "" for chunk in completion(**options, stream=True))
    called = completion(**options, tools=[TOOL], tool_choice="required").choices[0].message.tool_calls[0]
    _city(called.function.arguments)


@check("litellm")
def litellm_ollama(url: str) -> None:
    options = {"model": f"ollama_chat/{NAME}", "api_base": url, "messages": HELLO, "max_tokens": 8}
    completion = _litellm().completion
    assert completion(**options).choices[0].message.content
    assert "".join(chunk.choices[0].delta.content or "" for chunk in completion(**options, stream=True))


def _langchain(url: str) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(base_url=f"{url}/v1", api_key="none", model=NAME, max_completion_tokens=40)


@check("langchain_openai")
def langchain_chat(url: str) -> None:
    model = _langchain(url)
    assert model.invoke("Say hello.").content
    assert "".join(str(chunk.content) for chunk in model.stream("Say hello."))


@check("langchain_openai")
def langchain_tools_and_form(url: str) -> None:
    model = _langchain(url)
    _city(model.bind_tools([TOOL], tool_choice="any").invoke("Weather?").tool_calls[0]["args"])
    _city(model.with_structured_output(CITY | {"title": "Place"}).invoke("Where?"))


@check("langchain_ollama")
def langchain_ollama(url: str) -> None:
    from langchain_ollama import ChatOllama, OllamaEmbeddings

    model = ChatOllama(model=NAME, base_url=url, num_predict=40)
    assert model.invoke("Say hello.").content
    assert "".join(str(chunk.content) for chunk in model.stream("Say hello."))
    _city(model.with_structured_output(CITY | {"title": "Place"}).invoke("Where?"))
    assert len(OllamaEmbeddings(model=NAME, base_url=url).embed_query("one")) > 1


@check("llm")
def llm_command(url: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        entry = f"- model_id: here\n  model_name: {NAME}\n  api_base: {url}/v1\n  can_stream: true\n"
        Path(folder, "extra-openai-models.yaml").write_text(entry)
        for more in ([], ["--no-stream"]):
            command = [sys.executable, "-m", "llm", "-m", "here", "-o", "max_tokens", "8", "Say hello.", *more]
            environment = os.environ | {"LLM_USER_PATH": folder, "OPENAI_API_KEY": "none"}
            ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
            assert ended.returncode == 0 and ended.stdout.strip(), ended.stderr[-300:]


@contextmanager
def serving(model: str, context: int = 4096) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "seventy", "serve", model, "--name", NAME, "--port", str(port)]
    command += ["--context", str(context), "--pooling", "mean"]
    source = str(Path(__file__).resolve().parent.parent / "src")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            for _ in range(1200):
                with suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
                    break
                assert process.poll() is None, "the server ended"
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="smollm2")
    wish = parser.parse_args()
    failed = 0
    with serving(wish.model) as url:
        for client, checks in CHECKS.items():
            if not importlib.util.find_spec(client):
                print(f"{client:18} not installed")
                continue
            how: Counter[str] = Counter()
            for one in checks:
                try:
                    one(url)
                    how["passed"] += 1
                except Exception as error:
                    failed += 1
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    print(f"{client}, {one.__name__}: {type(error).__name__}: {error} ({where.line})"[:400])
            print(f"{client:18} {how['passed']} of {len(checks)}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
