"""Doors for trainers that exist: each speaks one trainer's or one server's own language, and leads to a reward."""

from preceptor.serve.doors.nemo_gym import router as nemo_gym
from preceptor.serve.doors.scoring import router as scoring
from preceptor.serve.doors.trainers import router as trainers

ROUTERS = (trainers, scoring, nemo_gym)
