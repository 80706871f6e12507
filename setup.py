"""Installation. Why each dependency is here, and why in this range, is in BUILD.md."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "dlen_cam2/__init__.py").read_text(encoding="utf-8"))

DOCS = [
    "mkdocs>=1.6,<2",
    "mkdocs-jupyter>=0.26,<0.27",
    "mkdocs-material>=9.7,<10",
    "mkdocstrings[python]>=1.0,<2",
]

setup(
    name="dlen_cam2",
    version=VERSION.group(1),
    description="Multi-task ranking for feeds in TensorFlow: MMOE, CGC, PLE, DLEN, CAM2",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    keywords=["CTR prediction", "multi-task learning", "ranking", "recommender systems", "TensorFlow"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["dlen_cam2", "dlen_cam2.*", "pipelines", "pipelines.*"]),
    package_data={"pipelines": ["*.sql"], "pipelines.engines": ["*.sql"], "pipelines.logs": ["*.sql"]},
    entry_points={"console_scripts": ["dlen_cam2 = dlen_cam2.__main__:main"]},
    install_requires=[
        "absl-py>=2.1,<3",
        "duckdb>=2.0,<2.1",
        "google-crc32c>=1.5,<2",
        "importlib_resources>=6,<8",
        "keras-tuner>=1.4.8,<1.5",
        "matplotlib>=3.9,<4",
        "markdown-it-py>=3,<5",
        "numpy>=2.0,<3",
        "pyarrow>=20,<27",
        "rich>=14,<16",
        "scikit-learn>=1.5,<2",
        "scipy>=1.14,<2",
        "setuptools<81",
        "tensorboard>=2.19,<3",
        "tensorflow>=2.21,<2.22",
        "tensorflow-datasets>=4.9.9,<5",
        "tensorflow-metadata>=1.17,<2",
        "tensorflow-recommenders>=0.7.7,<0.8",
        "tensorflow-serving-api>=2.21,<2.22",
        "tf_keras>=2.21,<2.22",
    ],
    extras_require={
        "dev": [
            *DOCS,
            "hypothesis>=6.100,<7",
            "import-linter>=2.1,<3",
            "ipykernel>=7,<8",
            "jupytext>=1.19,<2",
            "lightgbm>=4.5,<5",
            "mypy>=1.15,<3",
            "nbclient>=0.11,<0.12",
            "pyspark>=4.0,<5",
            "pytest>=8.3,<10",
            "ruff>=0.11,<0.18",
            "psutil>=6,<8",
            "pytest-xdist>=3.6,<4",
        ],
        "docs": DOCS,
        # Each in an environment of its own, which benchmarks.run makes.
        "peers": [
            "deepctr>=0.9.4,<0.10",
            "deepctr-torch>=0.3,<0.4",
            "requests>=2.31,<3",
            "tensorflow>=2.21,<2.22",
            "tf_keras>=2.21,<2.22",
            "torch==2.13.0",
            "torch-rechub>=0.9,<0.10",
        ],
        "experiments": ["lightgbm>=4.5,<5"],
        "spark": ["pyspark>=4.0,<5"],
    },
)
