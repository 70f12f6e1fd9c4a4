"""Compiles every kernel for GPUs that are not here: compile_kernels.py 90 128.

Stands in jax-triton's place, which wants a newer Python than Triton does: takes
what `rest.model.launch` gives, and prints a line of JSON a kernel. The number
behind the GPU's capability is the width of a head.
"""

import functools
import json
import re
import subprocess
import sys
import tempfile
import types
from typing import Any

import jax
import jax.numpy as jnp
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TYPES = {'bfloat16': '*bf16', 'float32': '*fp32', 'int32': '*i32'}


def compile_kernel(target, *reads, kernel, out_type, fixed, name, **options):
  """As `jax_triton.triton_call`; returns zeros."""
  attributes: dict[tuple[int, ...], Any] = {}

  def kind(value: Any, path: tuple[int, ...]) -> Any:
    if isinstance(value, tuple):
      pairs = enumerate(value)
      return tuple(kind(inner, (*path, i)) for i, inner in pairs)
    if isinstance(value, int):
      return 'i32'
    attributes[path] = [['tt.divisibility', 16]]
    return TYPES[jnp.dtype(value.dtype).name]

  names = [parameter.name for parameter in kernel.params]
  given = zip(names, [*reads, *out_type], strict=False)
  signature = {name: kind(x, (i,)) for i, (name, x) in enumerate(given)}
  source = ASTSource(
    kernel, signature | {'fixed': 'constexpr'}, {'fixed': fixed}, attributes
  )
  del options['grid']
  options |= options.pop('backend_options')
  compiled = triton.compile(source, target=target, options=options)
  usage = resources(compiled.asm['cubin'])
  print(json.dumps({'name': name, **usage, 'shared': compiled.metadata.shared}))
  return [jnp.zeros(x.shape, x.dtype) for x in out_type]


def resources(cubin: bytes) -> dict[str, int]:
  """Returns registers of a thread, and bytes of them that went to memory."""
  tool = triton.knobs.nvidia.cuobjdump.path
  with tempfile.NamedTemporaryFile(suffix='.cubin') as file:
    file.write(cubin)
    file.flush()
    text = subprocess.check_output([tool, '-res-usage', file.name], text=True)
  found = dict(re.findall(r'(REG|STACK):(\d+)', text))
  return {'registers': int(found['REG']), 'stack': int(found['STACK'])}


def main() -> None:
  capability, h = map(int, sys.argv[1:])
  target = GPUTarget('cuda', capability, 32)
  call = functools.partial(compile_kernel, target)
  sys.modules['jax_triton'] = types.SimpleNamespace(triton_call=call)

  from rest.model.flash import flash_attention
  from rest.model.transformer import ModelConfig
  from rest.sampler.kernels import Options, attend
  from rest.sampler.table import LayerCache, Where

  def zeros(*shape: int, dtype: str = 'bfloat16') -> jax.Array:
    return jnp.zeros(shape, dtype)

  integers = functools.partial(zeros, dtype='int32')
  b, t, k, g = 1, 256, 2, 6
  config = ModelConfig(8, 8, 1, k * g, k, h, 8)
  q, kv = zeros(b, t, k, g, h), zeros(b, t, k, h)
  run = flash_attention(config, integers(b, t), integers(b, t))
  _, pull = jax.vjp(lambda q, k, v: run(q, k, v, 0, None)[0], q, kv, kv)
  pull(q)
  cache = LayerCache(
    *(zeros(k, h, 640), zeros(k, 640, h)),
    *(zeros(2, 2, k, h, 1024), zeros(2, 2, k, 1024, h)),
    *(zeros(16, k, 2048, h), zeros(16, k, 2048, h)),
  )
  where = Where(jnp.int32(9), integers(2, 2), integers(2, 8), integers(2, 8))
  new = zeros(16, k, h)
  attend(zeros(16, k, g, h), new, new, cache, where, Options(0, 0.0))


if __name__ == '__main__':
  main()
