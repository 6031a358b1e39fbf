"""Training on several nodes, by a `TrainJob` of Kubeflow Trainer.

API ``trainer.kubeflow.org/v1alpha1`` as Trainer 2.2 (March 2026) made it, with ``runtimePatches`` in the place of
``podTemplateOverrides``; what is asked for is held against the models published for 2.3. The cluster has a
``ClusterTrainingRuntime`` whose job and container are called ``node``, as in Trainer's own ``torch-distributed``.

What the service account of dpo's pod needs, in its own namespace and nowhere else:

| apiGroups | resources | verbs |
|---|---|---|
| ``trainer.kubeflow.org`` | ``trainjobs`` | ``create`` ``list`` ``watch`` ``delete`` |
"""
