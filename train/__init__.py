"""PyTorch: corpora, structured distributions, distillation, teachers, students, recipes."""
