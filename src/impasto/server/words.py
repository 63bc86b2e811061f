"""The page's words in English and Chinese; what an option does comes from the methods' `Options`."""

from __future__ import annotations

from impasto.server.schema import served_options
from impasto.stylizer import list_methods

ENGLISH = {
    "title": "Impasto: your photo, repainted",
    "photo": "Photo",
    "style": "Style",
    "built_in": "Built-in",
    "painting": "A painting",
    "card": "A style card",
    "choose": "Painting whose style is taken",
    "strength": "Strength",
    "strength_info": "0 leaves the photo, 1 is the full style",
    "keep_color": "Keep the photo's colours",
    "size": "Longer side in pixels",
    "size_info": "empty: as large as the photo, or what suits the method",
    "method": "Method",
    "options": "Options of the method",
    "seed": "Seed",
    "seed_info": "same seed, same picture",
    "mask": "Only here",
    "mask_info": "Brush over what is to be repainted; nothing brushed: everything.",
    "paint": "Paint",
    "stop": "Stop, keep the best",
    "result": "Before and after",
    "get_picture": "Picture",
    "get_record": "Run record",
    "get_card": "Style card",
    "waiting": "waiting; {} before you",
    "running": "painting",
    "step": "step {} of {}",
    "done": "{} x {} pixels in {} s",
    "stopped": "stopped at step {}: the best picture so far",
    "cancelled": "stopped before there was a picture",
    "no_photo": "Choose a photo first.",
    "no_style": "Choose a painting or a style card first.",
}
CHINESE = {
    "title": "Impasto：把你的照片画成一幅画",
    "photo": "照片",
    "style": "风格",
    "built_in": "内置风格",
    "painting": "一幅画",
    "card": "风格卡",
    "choose": "取其风格的画作",
    "strength": "强度",
    "strength_info": "0 保留照片原样，1 为完整风格",
    "keep_color": "保留照片的颜色",
    "size": "长边像素",
    "size_info": "留空：与照片同大，或由方法决定",
    "method": "方法",
    "options": "方法的选项",
    "seed": "随机种子",
    "seed_info": "种子相同，画面相同",
    "mask": "只画这里",
    "mask_info": "涂抹要重画的部分；不涂则重画全部。",
    "paint": "开始作画",
    "stop": "停止，保留最佳画面",
    "result": "前后对比",
    "get_picture": "图片",
    "get_record": "运行记录",
    "get_card": "风格卡",
    "waiting": "排队中，前面还有 {} 个任务",
    "running": "作画中",
    "step": "第 {} 步，共 {} 步",
    "done": "{} x {} 像素，用时 {} 秒",
    "stopped": "在第 {} 步停止：目前最佳的画面",
    "cancelled": "在画面产生之前已停止",
    "no_photo": "请先选择一张照片。",
    "no_style": "请先选择一幅画或一张风格卡。",
}


def translations() -> dict[str, dict[str, str]]:
    """All words by language, with each option's help by METHOD.OPTION."""
    helps = {
        f"{method}.{name}": field.description or ""
        for method in list_methods()
        for name, field in served_options(method).model_fields.items()
    }
    return {"en": ENGLISH | helps, "zh": helps | CHINESE, "zh-CN": helps | CHINESE}


def words_for(languages: str | None) -> dict[str, str]:
    """The words for a browser that accepts `languages`, a header such as ``zh-CN,zh;q=0.9``."""
    return CHINESE if (languages or "").strip().lower().startswith("zh") else ENGLISH
