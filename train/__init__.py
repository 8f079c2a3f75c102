"""Training: corpora, structured distributions, teachers, their targets, students.

In the order in which a run goes through them: ``run`` (one recipe from corpus to results), ``recipe``,
``splits``, ``word_types``, ``batching``, ``train_teachers``, ``distill.targets``, ``train_students``,
``train_network``, ``trainer`` (the loop), ``distill.loss`` (of a batch), ``evaluation``, ``results``.
"""
