export const widget = {
  "widget.title": "Jobs",
  "widget.running": "running",
  "widget.waiting": "waiting",
  "widget.gpus": "GPUs in use",
  "widget.failed": "failed today",
  "widget.all": "All experiments",
  "widget.newest": "The newest jobs",
};
