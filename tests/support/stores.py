"""Made-up stores of other programs: Hugging Face's cache, Ollama's blobs, LM Studio's and Jan's folders."""

import hashlib
import json
import os
from pathlib import Path


def hugging_face(home: Path, repository: str, file: str, data: bytes) -> Path:
    """A file in the library's cache: a blob, and a link to it in a snapshot."""
    root = home / ".cache/huggingface/hub" / f"models--{repository.replace('/', '--')}"
    blob = root / "blobs" / hashlib.sha256(data).hexdigest()
    link = root / "snapshots" / ("a" * 40) / file
    for path in (blob, link):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(data)
    link.symlink_to(os.path.relpath(blob, link.parent))
    return link


def ollama(root: Path, name: str, data: bytes, file_type: str = "Q4_K_M", further: tuple[str, ...] = ()) -> Path:
    """A model in Ollama's store: `name` is model:tag, or registry/owner/model:tag; `further` are kinds of layers."""

    def put(content: bytes) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        blob = root / "blobs" / f"sha256-{digest}"
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    path, _, tag = name.rpartition(":")
    place = path if path.count("/") == 2 else f"registry.ollama.ai/{path if '/' in path else f'library/{path}'}"
    kinds = {"model": data, "template": b"{{ .Prompt }}", **{kind: f"{kind} {name}".encode() for kind in further}}
    layers = [{"mediaType": f"application/vnd.ollama.image.{kind}", **put(content)} for kind, content in kinds.items()]
    config = put(json.dumps({"model_format": "gguf", "model_family": "llama", "file_type": file_type}).encode())
    manifest = root / "manifests" / place / tag
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps({"schemaVersion": 2, "config": config, "layers": layers}))
    return root / "blobs" / str(layers[0]["digest"]).replace(":", "-")


def lm_studio(home: Path, repository: str, file: str, data: bytes) -> Path:
    path = home / ".lmstudio/models" / repository / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def jan(home: Path, name: str, data: bytes) -> Path:
    folder = home / ".local/share/Jan/data/llamacpp/models" / name
    folder.mkdir(parents=True)
    (folder / "model.gguf").write_bytes(data)
    (folder / "model.yml").write_text(f"model_path: llamacpp/models/{name}/model.gguf\nname: {name}\n")
    return folder / "model.gguf"
