"""Run the real Kaggle client against the fake server on 127.0.0.1:$FAKE_KAGGLE_PORT.

It points the client's local environment at that port before the client is imported. Not
KAGGLE_API_ENVIRONMENT=TEST: the client ignores that and goes to the real site.
"""

import os
import runpy
import sys

os.environ["KAGGLE_API_ENVIRONMENT"] = "LOCALHOST"  # Read when KaggleApi's class body runs.

import kagglesdk.kaggle_env as kaggle_env

port = int(os.environ["FAKE_KAGGLE_PORT"])
for environment in kaggle_env.KaggleEnv:  # No way leads to the real site.
    kaggle_env._env_to_endpoint[environment] = f"http://127.0.0.1:{port}"
sys.argv[0] = "kaggle"  # By this name the client knows that it is the running program.
runpy.run_module("kaggle", run_name="__main__")
