"""The page's words in English and Chinese; options are described by the methods' `Options`."""

from __future__ import annotations

from impasto.methods import list_methods
from impasto.server.schema import served_options

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

CHINESE_HELP = {
    "precision": "卷积的计算精度",
    "positions": "最多查看画作的多少个位置；更多则抽稀",
    "levels": "在哪些层次上转移风格，从深到浅",
    "level_strengths": "每一层的强度，0 到 1；留空：全为 1",
    "detail": "照片自身特征保留多少",
    "transform": "特征如何取得画作的统计量",
    "pooling": "主干网络的池化方式",
    "content_layers": "代表内容的层；留空：主干网络的默认层",
    "style_layers": "代表风格的层；留空：主干网络的默认层",
    "style_layer_weights": "每个风格层的权重；留空：随深度递减，总和为 1",
    "content_weight": "内容的权重",
    "style_weight": "风格的权重",
    "tv_weight": "全变差的权重，用于抑制噪点",
    "content_form": "内容损失的除数",
    "style_loss": "把特征的哪种统计量当作风格",
    "gram_form": "Gram 矩阵的除数，仅用于 gram",
    "tv_form": "使用哪种全变差",
    "normalised_pixels": "在主干网络的归一化像素中优化",
    "clamp": "每一步都把像素限制在 [0, 1]，而不只是最后",
    "optimizer": "lbfgs、adam 或 gd（普通梯度下降）",
    "learning_rate": "步长",
    "decay": "每隔若干步学习率乘以的系数",
    "decay_every": "两次衰减之间的步数",
    "beta1": "Adam 对梯度的记忆",
    "beta2": "Adam 对梯度平方的记忆",
    "epsilon": "Adam 的 epsilon",
    "average": "画面滑动平均的衰减；0：取最后一幅",
    "steps": "工作尺寸上的步数",
    "coarse_steps": "每个较粗尺寸上的步数",
    "octaves": "先从多少个较粗尺寸开始，每个是下一个的一半",
    "least_side": "较粗尺寸的短边不小于此值",
    "start_noise": "加到起始画面的噪声的标准差",
    "start_shift": "加到起始画面的噪声的均值",
    "style_scale": "查看画作的尺寸与照片尺寸之比",
    "parameters": "优化的对象：最细细节只变明暗的像素（auto 的默认）；像素；最细一级只变明暗的金字塔",
    "skip_deepest": "最深的多少个风格层只在较粗的尺寸上比较",
    "last_layers": "最后一遍所用的层；留空：主干网络的默认层",
    "layer_balance": "超列中每一层的除数",
    "last_steps": "最后一遍的步数，逐层匹配",
    "coherence": "为使画中的笔触保持完整，所取位置可以不那么相像的程度",
    "alpha": "匹配时照片所占的份额，其余是目前的画面",
    "candidates": "每个尺寸上可选的画作位置数",
    "rotations": "画作转过多少个 90 度，以增加可选的位置",
    "spread": "反复取用同一位置的代价",
    "match_form": "与所匹配特征的距离：cosine 或 relative（平方差）",
    "match_weight": "匹配的超列的权重",
    "last_weight": "最后一遍的权重",
    "color_weight": "所匹配位置的颜色的权重",
    "shape_weight": "具有画作对比度的照片特征的权重，使物体仍可辨认",
    "grey_detail": "最细的细节只改变明暗，以避免彩边",
    "recolor": "让大片区域按照片的布局取得画作的颜色",
    "noise_seed": "照片之外的噪声的随机种子",
}
"""Translations of the options' descriptions."""


def translations() -> dict[str, dict[str, str]]:
    """Return all words by language, with each option's help by METHOD.OPTION."""
    helps, chinese = {}, {}
    for method in list_methods():
        for name, field in served_options(method).model_fields.items():
            helps[f"{method}.{name}"] = field.description or ""
            chinese[f"{method}.{name}"] = CHINESE_HELP.get(name, field.description or "")
    return {"en": ENGLISH | helps, "zh": CHINESE | chinese, "zh-CN": CHINESE | chinese}


def words_for(languages: str | None) -> dict[str, str]:
    """Return the words for a browser that accepts `languages`, a header such as ``zh-CN,zh;q=0.9``."""
    return CHINESE if (languages or "").strip().lower().startswith("zh") else ENGLISH
