# make demo: the whole path in small.  make test: all tests.  Both work on a fresh machine.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python src
FOLDS := 0 1 2 3 4
CHECKED := kaggle_kernel/checked

.PHONY: demo demo-blend test quick coverage slow lint kernel-check bench gpu-check

# Every package is installed at the version that was tested; without -c, pip takes newer ones.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	touch $@

demo: .venv/installed
	$(RUN)/prepare_data.py demo
	$(RUN)/train_folds.py --fold 0..4 --config configs/demo.yaml --input input/demo
	for fold in $(FOLDS); do $(RUN)/infer.py --experiment demo --fold $$fold --format npy || exit 1; done
	$(RUN)/infer.py --experiment demo
	$(RUN)/infer.py --experiment demo --tta
	@echo; echo "Scores on the hidden labels of the demo's test rooms:"
	@$(RUN)/score.py $(FOLDS:%=submissions/demo_fold%) submissions/demo submissions/demo_tta \
		input/demo/test_label

# Two experiments and their blend, scored as networks of one fold and as five folds + flip TTA.
BLENDED := demo demo_fpn demo_blend
demo-blend: .venv/installed
	$(RUN)/prepare_data.py demo
	$(RUN)/train_folds.py --fold 0..4 --config configs/demo.yaml --input input/demo
	$(RUN)/train_folds.py --fold 0..4 --config configs/demo_fpn.yaml --input input/demo
	$(RUN)/blend.py demo demo_fpn --name demo_blend
	for name in $(BLENDED); do \
		$(RUN)/infer.py --experiment $$name --tta || exit 1; \
		for fold in $(FOLDS); do \
			$(RUN)/infer.py --experiment $$name --fold $$fold --format npy || exit 1; \
		done; \
	done
	@echo; cat oof/demo_blend/report.txt
	@echo; echo "Scores on the hidden labels of the demo's test rooms:"
	@$(RUN)/score.py $(foreach name,$(BLENDED),$(FOLDS:%=submissions/$(name)_fold%)) \
		$(BLENDED:%=submissions/%_tta) input/demo/test_label

# The demo's kernel, as Kaggle would run it: at full precision the same bytes as infer.py.
kernel-check: .venv/installed
	for precision in fp32 half; do \
		$(RUN)/package_kernel.py --owner somebody --experiment demo --precision $$precision \
			--output $(CHECKED) && \
		$(RUN)/check_kernel.py --submission submissions/demo_tta --input input/demo \
			--kernel $(CHECKED) || exit 1; \
	done

# Against a plain implementation of the same experiment; --full takes twenty minutes.
bench: .venv/installed
	$(BIN)/python benchmarks/run.py

# Whether all holds on this machine's GPUs, and how fast and large the recipes are.
gpu-check: .venv/installed
	$(BIN)/python benchmarks/gpu_check.py

# A process for each core, each with one thread.
SIDE_BY_SIDE := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder -n auto
test: .venv/installed
	$(SIDE_BY_SIDE)

# The tests that do not train.
QUICK := $(SIDE_BY_SIDE) -m "not slow"
quick: .venv/installed
	$(QUICK)

# The same, with the ten modules that they cover least and the total; it takes 40 % longer.
coverage: .venv/installed
	$(QUICK) --cov=nyuseg --cov-report=
	$(BIN)/coverage report --sort=cover | sed -n '1,12p;$$p'

# The rest.
slow: .venv/installed
	$(SIDE_BY_SIDE) -m slow

lint: .venv/installed
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
