"""Makes assets/fixtures/tokenizers/templates.json: chat templates as transformers renders them.

    python shared/xtask/python/templates.py

The templates are our own. Each uses the features that a family of published ones uses. The clock
stands still: strftime_now is asked on 26 July 2024.
"""

import datetime
import json
from importlib.metadata import version
from pathlib import Path

from jinja2.exceptions import TemplateError
from transformers.utils import chat_template_utils

OUT = Path(__file__).resolve().parents[3] / "assets" / "fixtures" / "tokenizers" / "templates.json"
NOW = datetime.datetime(2024, 7, 26, 9, 5, 3)

CHATML_DEFAULT_SYSTEM = """\
{% for message in messages %}
    {% if loop.first and messages[0]['role'] != 'system' %}
        {{- '<|im_start|>system\\nAnswer in one sentence.<|im_end|>\\n' }}
    {% endif %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>' + '\\n' }}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}
"""

DATE_AND_TOOLS = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{#- The system turn is always there. -#}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_text = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_text = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Tools: " ~ tools|length ~ "\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- "Today: " + date_string + "\\n\\n" }}
{{- system_text }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif message.tool_calls is defined and message.tool_calls|length != 1 %}
        {{- raise_exception("One tool call at a time.") }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

ALTERNATING_INST = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_text = messages[0]["content"] %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set turns = messages %}
{%- endif %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for turn in turns %}
    {%- if (turn["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("Roles must alternate: user, assistant, user, ...; turn " ~ ns.index ~ " is " ~ turn.role) }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for turn in turns %}
    {%- if turn["role"] == "user" %}
        {%- if loop.last and system_text is defined %}
            {{- "[INST] " + system_text + "\\n\\n" + turn["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + turn["content"] + "[/INST]" }}
        {%- endif %}
    {%- else %}
        {{- " " + turn["content"]|trim + eos_token }}
    {%- endif %}
{%- endfor %}
"""

REVERSE_AND_THINK = """\
{%- macro turn(role, text) -%}
<|im_start|>{{ role }}
{{ text }}<|im_end|>
{% endmacro -%}
{%- if messages[0].role == 'system' %}
    {{- turn('system', messages[0].content) }}
{%- endif %}
{%- set ns = namespace(searching=true, last_question=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string and not (message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last_question = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "system" %}{% continue %}{% endif %}
    {%- set content = message.content %}
    {%- if message.role == "assistant" and '</think>' in content %}
        {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- if loop.index0 > ns.last_question %}
            {%- set content = '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content %}
        {%- endif %}
    {%- endif %}
    {{- turn(message.role | lower, content) }}
    {%- if loop.index > 20 %}{% break %}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

GENERATION_BLOCKS = """\
{% for message in messages %}
{%- if message.role == 'assistant' %}
{{ '<a>' }}
{%- generation -%}
    {{ message.content }}
{%- endgeneration %}</a>
{% else %}
<{{ message.role.title() }}>{% generation %}{{ message.content.replace('\\n', ' ').upper() }}{% endgeneration %}

{% endif %}
{% endfor %}
"""

PYTHON_HABITS = """\
{%- set labels = {'user': 'Q', 'assistant': 'A', 'system': 'S'} -%}
{%- for key, value in labels.items() -%}
{{ key }}={{ value }}{{ '' if loop.last else '; ' }}
{%- endfor %}
{{ messages | tojson }}
{{ messages | tojson(indent=2) }}
{{ {'b': [], 'a': {}, 'c': [1, 2.5, none, true], 'd': 'é<&>\\'"\\\\ 🙂'} | tojson(sort_keys=true) }}
{{ ['é🙂', {'k': [[]]}] | tojson(ensure_ascii=true, separators=(',', ':')) }}
{{ none }} {{ true }} {{ 3 // 2 }} {{ 7 / 2 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ '%s-%02d' | format('x', 7) }}
{{ tools is none }} {{ tools is defined }} {{ nothing is defined }} [{{ nothing }}] {{ documents is not none }}
{{ strftime_now('%Y-%m-%d %H:%M:%S, %A %-d %B %y %j %I%p') }}
{{ messages | map(attribute='role') | join(',') }} {{ (messages | selectattr('role', 'equalto', 'user') | list) | length }}
{{ 'a,b,,c'.split(',') | join('|') }} {{ ' x '.strip() }} {{ 'xxhixx'.strip('x') }} {{ 'Hello'.upper().lower().capitalize() }} {{ 'abc'[1:] }} {{ 'abc'[::-1] }} {{ 'banana'.count('a') }} {{ 'banana'.find('n') }}
{{ messages[-1]['content'][:5] }}{% if messages | length is odd %} odd{% endif %}{{ ' first' if messages[0].role in ['user', 'system'] }}
{% filter upper %}filtered{% endfilter %}{% raw %}{{ raw }}{% endraw %}
{%- for m in messages if m.role == 'user' %} {{ loop.index }}/{{ loop.length }}{% else %} nobody{% endfor %}
{%- set block %}captured {{ bos_token }}{% endset %}
{{ block }} {{ eos_token }} {{ pad_token }} {{ unk_token }}.
"""

STRING_METHODS = """\
{%- for text in ['a,b,,c', '  two  words\x1cand more ', 'Straße ΑΣ ı', '-7', '', 'x\\ty\\n\\tz', 'naïve 🙂 tail', 'aXbXc'] %}
{{- [text.split(','), text.split(none, 1), text.split(maxsplit=2), text.split(sep='X', maxsplit=1)] | tojson }}
{{ [text.rsplit(','), text.rsplit(',', 1), text.rsplit(), text.rsplit(none, 1), text.rsplit(maxsplit=2)] | tojson }}
{{ [text.rsplit('X', maxsplit=1), text.partition('X') | list, text.rpartition('X') | list] | tojson }}
{{ [text.removeprefix('a'), text.removesuffix('c'), text.removeprefix(''), text.removesuffix('tail')] | tojson }}
{{ [text.swapcase(), text.casefold(), text.zfill(5), text.zfill(-1), text.expandtabs(), text.expandtabs(3), text.expandtabs(tabsize=0)] | tojson }}
{{ [text.center(12), text.center(13, '·'), text.ljust(12, '.') ~ '|', text.rjust(12), text.center(-3)] | tojson }}
{{ ['%s' % text, '%i|%5s|%-5s|' % (1, 'ab', 'ab'), '%05.2f%%' % 3.14159, '%d of %d' % (2, 3), 'a' ~ '%s' % text|upper ~ 'b', '%s' % text[0:2].upper()] | tojson }}
{% endfor %}
{{- 'naïve 🙂 tail'.index('tail') }} {{ 'aXbXc'.rindex('X') }} {{ 7 % 4 }} {{ '{% generation %}' }}
{%- for m in messages %}{{ '%s: %s' % (m.role, m.content) }}{% endfor %}
"""

TEMPLATES = {
    "chatml with a default system turn": CHATML_DEFAULT_SYSTEM,
    "headers with a date and a branch for tools": DATE_AND_TOOLS,
    "[INST] with roles that must alternate": ALTERNATING_INST,
    "a loop backwards, a namespace and thoughts cut out": REVERSE_AND_THINK,
    "generation blocks": GENERATION_BLOCKS,
    "python habits": PYTHON_HABITS,
    "methods of python's strings": STRING_METHODS,
    "list of named templates": [
        {"name": "tool_use", "template": "{{ raise_exception('not this one') }}"},
        {"name": "default", "template": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"},
    ],
}

user = lambda text: {"role": "user", "content": text}
assistant = lambda text: {"role": "assistant", "content": text}
system = lambda text: {"role": "system", "content": text}

CONVERSATIONS = [
    [user("Explain black holes")],
    [system(" Be brief. "), user("नमस्ते 🙂\n<b>&'\"</b>")],
    [user("1+1?"), assistant("<think>\nadd\n</think>\n\n 2 "), user("and 2+2?")],
    [system("S"), user("a"), assistant("<think>x</think>b"), user("c"), assistant("<think>\n\ny</think>\n\nd")],
    [user("a"), user("b")],
]

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


def render(template, messages):
    if isinstance(template, list):
        template = next(t["template"] for t in template if t["name"] == "default")
    try:
        texts, _ = chat_template_utils.render_jinja_template(
            conversations=[messages], tools=None, documents=None, chat_template=template,
            add_generation_prompt=True, **SPECIAL)
        return {"text": texts[0]}
    except TemplateError as error:
        return {"raises": str(error)}


def main():
    chat_template_utils.datetime = Clock
    cases = [
        {"name": name, "template": template,
         "expected": [render(template, messages) for messages in CONVERSATIONS]}
        for name, template in TEMPLATES.items()
    ]
    value = {"reference": f"transformers {version('transformers')}, Jinja2 {version('Jinja2')}",
             "special_tokens": SPECIAL, "conversations": CONVERSATIONS, "cases": cases}
    OUT.write_text(json.dumps(value, indent=0, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    for case in cases:
        print(case["name"], [next(iter(e)) for e in case["expected"]])


if __name__ == "__main__":
    main()
