#!/bin/sh
# Direct RLAIF: the judge itself is the reward, no labels and no reward model between them (Lee et al. 2023, arXiv
# 2309.00267). PPO has the policy answer, the judge grades each reply by the constitution, and a reply without a verdict
# is masked. No key, no network, no GPU; about four minutes on two cores. Run again, it goes on where it stopped.
#
# With models of your own: --model hf/Qwen/Qwen3-0.6B, --judge openai/gpt-6-luna, --max-cost 5, and prompts that are no
# front desk's. Then let another judge guard the training: --guard-judge openai/gpt-6.1-terra --guard-prompts held-out.jsonl.
# More flags can follow the command: sh examples/direct-rlaif.sh --epochs 2
exec preceptor train ppo front-desk \
    --judge embedded --constitution front-desk \
    --judge-mode group --principles each \
    --model embedded --out runs/direct-rlaif \
    --epochs 0.5 --batch-size 32 --samples 4 --learning-rate 1e-3 --kl-beta 0.05 --max-new-tokens 64 \
    --guard-judge oracle/embedded --guard-prompts front-desk-held-out --guard-every 10 \
    "$@"
