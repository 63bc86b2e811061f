"""The words that the generated parts of the documentation need, in both languages."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path

LANGUAGES = ("en", "zh")
PHRASES = Path(__file__).parent.parent / "zh" / "phrases.toml"

WORDS = {
    "en": {
        "options": "Options",
        "option": "option",
        "values": "values",
        "default": "default",
        "meaning": "meaning",
        "presets": "Presets",
        "preset": "preset",
        "changes": "changes",
        "nothing": "nothing",
        "numbers": "Numbers",
        "departures": "Departs from the paper",
        "use": "Use",
        "kind": "kind",
        "method": "method",
        "name": "name",
        "work": "work",
        "artist": "artist",
        "year": "year",
        "summary": "what it is",
        "weights": "Weights",
        "file": "file",
        "licence": "licence",
        "data": "trained on",
        "where": "trained where",
        "quality": "measured",
        "photo": "These commands painted the pictures of this page. The photographs come with scikit-image.",
        "measured": "[Benchmarks](../benchmarks.md) says how this was measured, and in comparison with what.",
        "unmeasured": "It is not measured yet.",
        "no weights": "It needs only the weights of its backbone.",
        "none shipped": "None are shipped yet. `impasto train {}` makes some; use them by `--weights FILE`.",
        "one-pass": "one pass",
        "optimisation": "optimisation",
        "yes or no": "yes or no",
        "whole number": "whole number",
        "number": "number",
        "text": "text",
        "list": "list of {}s",
        "names": "list of names",
        "none": "none",
        "yes": "yes",
        "no": "no",
        "and": " and ",
        "min_length": "at least {}",
        "arguments": "arguments and flags",
        "page": "The page in the browser: a photo, the styles as pictures, the result",
        "a second": "a second or less",
        "half a minute": "half a minute",
        "a minute": "a minute",
    },
    "zh": {
        "options": "选项",
        "option": "选项",
        "values": "取值",
        "default": "默认",
        "meaning": "含义",
        "presets": "预设",
        "preset": "预设",
        "changes": "改动",
        "nothing": "无",
        "numbers": "实测数据",
        "departures": "与论文的差异",
        "use": "用法",
        "kind": "类型",
        "method": "方法",
        "name": "名称",
        "work": "作品",
        "artist": "作者",
        "year": "年代",
        "summary": "简介",
        "weights": "权重",
        "file": "文件",
        "licence": "许可",
        "data": "训练数据",
        "where": "训练环境",
        "quality": "实测质量",
        "photo": "本页的图由下列命令生成，照片均为 scikit-image 自带。",
        "measured": "测量方法与对照见[基准测试](../benchmarks.md)。",
        "unmeasured": "尚无实测数据。",
        "no weights": "除骨干网络外，不需要别的权重。",
        "none shipped": "当前版本未附带权重：可用 `impasto train {}` 训练，再用 `--weights 文件` 指定。",
        "one-pass": "一次前向",
        "optimisation": "迭代优化",
        "yes or no": "是 / 否",
        "whole number": "整数",
        "number": "数值",
        "text": "文本",
        "list": "{}列表",
        "names": "名称列表",
        "none": "空",
        "yes": "是",
        "no": "否",
        "and": "，",
        "min_length": "至少 {} 项",
        "arguments": "参数",
        "page": "浏览器里的页面：照片、风格图片和结果",
        "a second": "不到一秒",
        "half a minute": "半分钟",
        "a minute": "一分钟",
    },
}


@functools.cache
def phrases() -> dict[str, str]:
    """English sentences of docstrings, options and works, and what they are in Chinese."""
    with PHRASES.open("rb") as file:
        found: dict[str, str] = tomllib.load(file)
    return found


def say(language: str, key: str, *values: object) -> str:
    """The word or sentence called `key`."""
    return WORDS[language][key].format(*values)


SENTENCES: set[str] = set()
"""All sentences that were to be translated so far."""


def translate(language: str, text: str) -> str:
    """`text` in Chinese if there is a translation of exactly this, else as it is."""
    if language != "zh":
        return text
    SENTENCES.add(text)
    return phrases().get(text, text)
