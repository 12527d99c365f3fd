"""Short chat templates of our own with the conventions of the families they are named after."""

# The prompt opens the thinking, or writes an empty one; old thinking is dropped.
QWEN35 = """\
{%- for m in messages %}
{{- '<|im_start|>' ~ m.role ~ '\\n' }}
{%- if m.role == 'assistant' and m.reasoning_content and loop.last %}{{- '<think>\\n' ~ m.reasoning_content ~ '\\n</think>\\n\\n' }}{% endif %}
{{- m.content ~ '<|im_end|>\\n' }}
{%- endfor %}
{%- if tools %}{{- '<tool_call>' }}{% endif %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' ~ ('<think>\\n\\n</think>\\n\\n' if enable_thinking is defined and enable_thinking is false else '<think>\\n') }}
{%- endif %}"""  # noqa: E501

# The prompt ends one thinking or begins another; the switch has another name.
DEEPSEEK = """\
{%- if thinking is not defined %}{% set thinking = false %}{% endif %}
{%- for m in messages %}{{- '<｜' ~ m['role'] ~ '｜>' ~ m['content'] }}{% endfor %}
{%- if add_generation_prompt %}{{- '<｜Assistant｜>' ~ ('<think>' if thinking else '</think>') }}{% endif %}"""

# The prompt always opens the thinking.
MINIMAX = """\
{%- for m in messages %}
{{- ']~b]' ~ m.role ~ '\\n' }}
{%- if m.reasoning_content %}{{- '<think>\\n' ~ m.reasoning_content ~ '\\n</think>\\n' }}{% endif %}
{{- m.content ~ '[e~[\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- ']~b]ai\\n<think>\\n' }}{% endif %}"""

# Thinking is one of several blocks of a message.
MISTRAL = """\
{%- for m in messages %}
{%- if m.role == 'user' %}{{- '[INST]' ~ m.content ~ '[/INST]' }}
{%- elif m.content is string %}{{- m.content ~ eos_token }}
{%- else %}
{%- for block in m.content %}
{%- if block['type'] == 'thinking' %}{{- '[THINK]' ~ block['thinking'] ~ '[/THINK]' }}
{%- else %}{{- block['text'] }}{% endif %}
{%- endfor %}{{- eos_token }}
{%- endif %}
{%- endfor %}"""

# Thinking has a channel, which is written empty where it is switched off.
GEMMA4 = """\
{%- if enable_thinking is defined and enable_thinking %}{{- '<|turn>system\\n<|think|><turn|>\\n' }}{% endif %}
{%- for m in messages %}
{{- '<|turn>' ~ ('model' if m.role == 'assistant' else m.role) ~ '\\n' }}
{%- set thought = m.get('reasoning') or m.get('reasoning_content') %}
{%- if thought %}{{- '<|channel>thought\\n' ~ thought ~ '\\n<channel|>' }}{% endif %}
{{- m.content ~ '<turn|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|turn>model\\n' }}
{%- if not enable_thinking | default(false) %}{{- '<|channel>thought\\n<channel|>' }}{% endif %}
{%- endif %}"""

# Messages on channels; one call in a message, whose thinking stays until an answer follows.
HARMONY = """\
{{- '<|start|>system<|message|>Reasoning: ' ~ (reasoning_effort if reasoning_effort is defined else 'medium') ~ '<|end|>' }}
{%- if tools %}
{{- '<|start|>developer<|message|>' }}
{%- for tool in tools %}{{- '// ' + tool.function.description + '\\ntype ' + tool.function.name + ' = any;\\n' }}{% endfor %}
{{- '<|end|>' }}
{%- endif %}
{%- set last = namespace(name=none) %}
{%- for m in messages %}
{%- if m.role == 'assistant' and 'tool_calls' in m %}
{%- if m.content and m.thinking %}{{ raise_exception('content and thinking') }}{% endif %}
{%- set later = namespace(answer=false) %}
{%- for n in messages[loop.index:] %}{% if n.role == 'assistant' and 'tool_calls' not in n %}{% set later.answer = true %}{% endif %}{% endfor %}
{%- if m.thinking and not later.answer %}{{- '<|start|>assistant<|channel|>analysis<|message|>' ~ m.thinking ~ '<|end|>' }}{% endif %}
{%- set last.name = m.tool_calls[0].function.name %}
{{- '<|start|>assistant to=functions.' ~ last.name ~ '<|channel|>commentary json<|message|>' ~ m.tool_calls[0].function.arguments | tojson ~ '<|call|>' }}
{%- elif m.role == 'assistant' %}{{- '<|start|>assistant<|channel|>final<|message|>' ~ m.content ~ '<|end|>' }}
{%- elif m.role == 'tool' %}{{- '<|start|>functions.' ~ last.name ~ ' to=assistant<|channel|>commentary<|message|>' ~ m.content | tojson ~ '<|end|>' }}
{%- else %}{{- '<|start|>' ~ m.role ~ '<|message|>' ~ m.content ~ '<|end|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{% endif %}"""  # noqa: E501

# Knows neither thinking nor tools.
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}ai:{% endif %}"
