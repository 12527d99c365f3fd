"""Chat templates for files without one: as families of models were trained, in our words, without tools.

Older files of Llama 2, Vicuna and their relatives have none, nor do base models. Which one fits is told by the special
tokens of the vocabulary, else it is ChatML. Sources: the model cards of the families.
"""

from collections.abc import Callable

_TURN = "{% for m in messages %}"
_PROMPT = "{% endfor %}{% if add_generation_prompt %}"

TEMPLATES = {
    "chatml": (
        _TURN + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n" + _PROMPT + "<|im_start|>assistant\n{% endif %}"
    ),
    "llama2": (
        "{% set s = namespace(text='') %}"
        + _TURN
        + "{% if m.role == 'system' %}{% set s.text = s.text ~ '<<SYS>>\n' ~ m.content ~ '\n<</SYS>>\n\n' %}"
        "{% elif m.role == 'user' %}{{ bos_token }}[INST] {{ s.text }}{{ m.content }} [/INST]{% set s.text = '' %}"
        "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
    ),
    "llama3": (
        "{{ bos_token }}"
        + _TURN
        + "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
        + _PROMPT
        + "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    "gemma": (
        "{{ bos_token }}"
        + _TURN
        + "{% if m.role == 'system' %}{{ raise_exception('there is no system role') }}{% endif %}"
        "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
        + _PROMPT
        + "<start_of_turn>model\n{% endif %}"
    ),
    "zephyr": _TURN + "<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n" + _PROMPT + "<|assistant|>\n{% endif %}",
    "phi3": _TURN + "<|{{ m.role }}|>\n{{ m.content }}<|end|>\n" + _PROMPT + "<|assistant|>\n{% endif %}",
    # Its tokenizer puts the beginning-of-text token in front.
    "command-r": (
        _TURN
        + "<|START_OF_TURN_TOKEN|><|{{ {'user': 'USER', 'assistant': 'CHATBOT'}.get(m.role, 'SYSTEM') }}_TOKEN|>"
        "{{ m.content | trim }}<|END_OF_TURN_TOKEN|>"
        + _PROMPT
        + "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"
    ),
    "vicuna": (
        _TURN + "{% if m.role == 'system' %}{{ m.content }}\n\n{% elif m.role == 'user' %}USER: {{ m.content }}\n"
        "{% else %}ASSISTANT: {{ m.content }}{{ eos_token }}\n{% endif %}" + _PROMPT + "ASSISTANT:{% endif %}"
    ),
    "alpaca": (
        _TURN + "{% if m.role == 'system' %}{{ m.content }}\n\n"
        "{% elif m.role == 'user' %}### Instruction:\n{{ m.content }}\n\n"
        "{% else %}### Response:\n{{ m.content }}{{ eos_token }}\n\n{% endif %}"
        + _PROMPT
        + "### Response:\n{% endif %}"
    ),
}
# The first whose token a vocabulary has.
_MARKS = {
    "<|im_start|>": "chatml",
    "<|START_OF_TURN_TOKEN|>": "command-r",
    "<|start_header_id|>": "llama3",
    "<start_of_turn>": "gemma",
    "[INST]": "llama2",
    "<|end|>": "phi3",
    "<|assistant|>": "zephyr",
}


def fallback(has: Callable[[str], bool]) -> str:
    """Return the name of a template for a model without one. `has` tells whether the vocabulary has a special token."""
    found = next((name for mark, name in _MARKS.items() if has(mark)), None)
    # Llama 2 and what came of it wrote their marks in plain text.
    return found or ("llama2" if has("<s>") and has("</s>") else "chatml")
