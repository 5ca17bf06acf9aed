"""The package list; everything else is in pyproject.toml.

``configs/`` is in the root of the repository and is installed as ``mm_cpgd.configs``, so that the
installed top level holds no package of so common a name. pyproject.toml cannot express both this and "find".
"""

from setuptools import find_namespace_packages, setup

setup(
    packages=[
        *find_namespace_packages(include=["mm_cpgd*", "rewards*", "data*", "eval*"]),
        "mm_cpgd.configs",
    ],
    package_dir={"mm_cpgd.configs": "configs"},
)
