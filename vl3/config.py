"""The sizes of a model, as transformers configurations, and the presets of the released models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig, WhisperConfig

from vl3.arguments import whole


class VL3VisionConfig(PreTrainedConfig):
    """Sizes of the any-resolution vision encoder (SigLIP blocks with 2D-RoPE)."""

    model_type = "vl3_vision"
    base_config_key = "vision_config"

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    patch_size: int = 14
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs) -> None:
        super().__post_init__(**kwargs)
        for name in (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "patch_size",
        ):
            setattr(self, name, whole(name, getattr(self, name), low=1))
        if self.hidden_size % self.num_attention_heads or self.head_channels % 4:
            raise ValueError(
                f"a vision width of {self.hidden_size} with {self.num_attention_heads} heads gives "
                f"{self.hidden_size / self.num_attention_heads:g} channels per head; 2D-RoPE needs "
                "a multiple of 4"
            )

    @property
    def head_channels(self) -> int:
        return self.hidden_size // self.num_attention_heads


class BEATsConfig(PreTrainedConfig):
    """Sizes of BEATs, an ear for sounds; fields and defaults are those of its release (iter3+).

    layer_wise_gradient_decay_ratio: what a gradient is multiplied with at each layer
    encoder_layerdrop: how likely a layer is left out in training
    finetuned_model, predictor_class: whether it has a classifier, and of how many classes
    piece_steps: of 0.16 s each, heard at a time; pool_bands: of its 8 bands, how many neighbours
          become one token (official: none are joined, 50 tokens a second)
    """

    model_type = "vl3_beats"
    base_config_key = "audio_config"

    input_patch_size: int = 16
    embed_dim: int = 512
    encoder_layers: int = 12
    encoder_embed_dim: int = 768
    encoder_ffn_embed_dim: int = 3072
    encoder_attention_heads: int = 12
    conv_pos: int = 128
    conv_pos_groups: int = 16
    num_buckets: int = 320
    max_distance: int = 800
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    dropout_input: float = 0.0
    encoder_layerdrop: float = 0.05
    layer_wise_gradient_decay_ratio: float = 0.6
    finetuned_model: bool = False
    predictor_class: int = 527
    initializer_range: float = 0.02
    piece_steps: int = 187
    pool_bands: int = 1

    def __post_init__(self, **kwargs) -> None:
        super().__post_init__(**kwargs)
        for name in (
            "input_patch_size",
            "embed_dim",
            "encoder_layers",
            "encoder_embed_dim",
            "encoder_ffn_embed_dim",
            "encoder_attention_heads",
            "conv_pos",
            "conv_pos_groups",
            "num_buckets",
            "max_distance",
            "predictor_class",
            "piece_steps",
            "pool_bands",
        ):
            setattr(self, name, whole(name, getattr(self, name), low=1))
        if self.encoder_embed_dim % self.encoder_attention_heads:
            raise ValueError(
                f"an ear {self.encoder_embed_dim} wide cannot be shared by "
                f"{self.encoder_attention_heads} heads; choose a number of heads that divides it"
            )
        if 128 % self.input_patch_size or self.bands % self.pool_bands:
            raise ValueError(
                f"patches of {self.input_patch_size} of 128 mel bins and pool_bands="
                f"{self.pool_bands} leave a rest; choose sizes that divide them"
            )

    @property
    def bands(self) -> int:
        """Tokens of a step before pooling."""
        return 128 // self.input_patch_size

    @property
    def width(self) -> int:
        """Of the features that a connector takes."""
        return self.encoder_embed_dim


class WhisperEarConfig(WhisperConfig):
    """Sizes of Whisper's encoder as an ear, with the names of transformers' WhisperConfig.

    max_source_positions: of 0.02 s each, heard at a time (Whisper's own: 1,500, 30 s)
    pool: how many of them become one token; 4 are 12.5 tokens a second
    """

    model_type = "vl3_whisper"
    base_config_key = "audio_config"

    pool: int = 4

    def __post_init__(self, **kwargs) -> None:
        super().__post_init__(**kwargs)
        self.pool = whole("pool", self.pool, low=1)
        if self.max_source_positions % self.pool:
            raise ValueError(
                f"{self.max_source_positions} positions cannot be pooled by {self.pool}; choose a "
                "pool that divides them"
            )

    @property
    def width(self) -> int:
        """Of the features that a connector takes."""
        return self.d_model


class VL3Config(PreTrainedConfig):
    """A whole model: vision encoder, connector, language model.

    vision_config: VL3VisionConfig, or transformers' CLIPVisionConfig or SiglipVisionConfig for a
    tower of one fixed size (vl3.vision.towers)
    connector: "linear" or "mlpNx_gelu" (N linear layers), the official names, or that of a class
    which is registered (vl3.connectors).
    image_token_id, video_token_id: token ids that mark visual slots in a prompt. The official
    layout has one for both (video_token_id is None), the transformers-native layout has two.
    audio_config: sizes of an ear (BEATsConfig, WhisperEarConfig), None for a model without;
    audio_connector: "linear" or "mlpNx_gelu"; audio_token_id: marks the slots of sound.
    """

    model_type = "vl3"
    # transformers 5.23 would make them of a table, which 5.17 does not know: made below for both.
    sub_configs: ClassVar[dict] = {
        "vision_config": AutoConfig,
        "text_config": AutoConfig,
        "audio_config": AutoConfig,
    }
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values", "losses_K", "right_K"]

    if TYPE_CHECKING:  # what they are once it is made
        vision_config: Any
        text_config: PreTrainedConfig
        audio_config: PreTrainedConfig | None = None
    else:  # what may be given
        vision_config: dict | PreTrainedConfig | None = None
        text_config: dict | PreTrainedConfig | None = None
        audio_config: dict | PreTrainedConfig | None = None
    connector: str = "mlp2x_gelu"
    image_token_id: int = 151665
    video_token_id: int | None = None
    audio_connector: str = "mlp2x_gelu"
    audio_token_id: int | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs) -> None:
        usual = ("vl3_vision", "qwen2", "vl3_whisper")
        for name, kind in zip(self.sub_configs, usual, strict=True):
            given = getattr(self, name)
            is_absent = given is None and name == "audio_config"
            if not (is_absent or isinstance(given, PreTrainedConfig)):
                made = AutoConfig.for_model(**{"model_type": kind} | (given or {}))
                setattr(self, name, made)
        super().__post_init__(**kwargs)
        self.tie_word_embeddings = bool(self.text_config.tie_word_embeddings)

    @property
    def slot_token_ids(self) -> tuple[int, ...]:
        """Token ids whose embedding is replaced by a visual token or one of sound."""
        return tuple(self.slot_kinds.values())

    @property
    def visual_token_ids(self) -> tuple[int, ...]:
        """Those whose embedding is replaced by a visual token."""
        return tuple(token for kind, token in self.slot_kinds.items() if kind != "audio")

    @property
    def slot_kinds(self) -> dict[str, int]:
        """Those ids by what they mark; where one marks images and videos, it goes by image."""
        ids = {
            "image": self.image_token_id,
            "video": self.video_token_id,
            "audio": self.audio_token_id,
        }
        return {kind: token for kind, token in ids.items() if token is not None}


NANO_STD = 0.07  # about 1 / sqrt(width); 0.02 starts several times slower


def _qwen2(**sizes) -> PreTrainedConfig:
    shared = {
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "max_position_embeddings": 32768,
    }
    return AutoConfig.for_model("qwen2", **(shared | sizes))


def videollama3_2b() -> VL3Config:
    """Sizes of VideoLLaMA3-2B: SigLIP so400m and Qwen2.5-1.5B."""
    text = _qwen2(
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        vocab_size=151936,
        tie_word_embeddings=True,
    )
    return VL3Config(vision_config=VL3VisionConfig(), text_config=text)


def videollama3_7b() -> VL3Config:
    """Sizes of VideoLLaMA3-7B: SigLIP so400m and Qwen2.5-7B."""
    text = _qwen2(
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        vocab_size=152064,
        tie_word_embeddings=False,
    )
    return VL3Config(vision_config=VL3VisionConfig(), text_config=text)


def nano(*, vocab_size: int, image_token_id: int) -> VL3Config:
    """Sizes of the bundled toy model: the same architecture at 2.6 M parameters."""
    vision = VL3VisionConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        initializer_range=NANO_STD,
    )
    text = _qwen2(
        hidden_size=192,
        intermediate_size=288,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=vocab_size,
        max_position_embeddings=8192,
        initializer_range=NANO_STD,
        tie_word_embeddings=True,
    )
    return VL3Config(vision_config=vision, text_config=text, image_token_id=image_token_id)


AutoConfig.register("vl3", VL3Config, exist_ok=True)
AutoConfig.register("vl3_vision", VL3VisionConfig, exist_ok=True)
AutoConfig.register("vl3_beats", BEATsConfig, exist_ok=True)
AutoConfig.register("vl3_whisper", WhisperEarConfig, exist_ok=True)
