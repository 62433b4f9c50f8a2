"""The same numbers, faster: nothing else needs this folder, and one finder looks for it."""

from softprompts.fast import fused_attention, plain_attention
from softprompts.fast.prepacking import laid_out_bytes, prepack
from softprompts.fast.preparing import choose_attention, fuse, why_not
from softprompts.fast.reader import FastReader

plain_attention.register()
fused_attention.register()

READER = FastReader()

__all__ = ["READER", "choose_attention", "fuse", "laid_out_bytes", "prepack", "why_not"]
