#!/usr/bin/env bash
# Runs rest.main on Kubernetes as a JobSet, one process a host.
#
#   launch/jobset.sh --name=run1 --image=gcr.io/me/rest --hosts=2 --gpus=8 \
#       [FLAGS] -- --config=configs/math.py --workdir=gs://bucket/run1
#
# The cluster needs the JobSet controller; the image needs rest installed and
# this checkout as its working folder. The manifest is JSON, which is YAML too.
# Any lost host starts all of them again; exit status 1 (an error) or 2 (a bad
# input) is the end. A JobSet cannot wait between starts.
#   --name=NAME      Of the JobSet: lower case, at most 40 characters.
#   --image=IMAGE    The container.
#   --hosts=N        Hosts, each with all of its accelerators.
#   --gpus=N         GPUs on each host; or else
#   --tpu=KIND,TOPOLOGY,CHIPS  as GKE names them, CHIPS being those of one host,
#                    such as tpu-v5-lite-podslice,4x8,4.

set -euo pipefail
# shellcheck source=launch/shared.sh
. "$(dirname "$0")/shared.sh"

name='' image='' hosts='' gpus='' tpu=''
read_flags "$@"
want name '[a-z]([a-z0-9-]{0,38}[a-z0-9])?' 'a-z, 0-9 and -, at most 40'
want image '[A-Za-z0-9._/:@-]+' 'the container image with rest'
want hosts "$positive" 'how many hosts to run on'
[ -n "$gpus$tpu" ] || refuse '--gpus or --tpu is missing: what a host has.'
[ -z "$gpus" ] || [ -z "$tpu" ] || refuse '--gpus and --tpu exclude each other.'
want_argument workdir

# Kubernetes reads $ as the start of a variable, and $$ as a $.
command=$(python3 -c 'import json, sys; print(json.dumps(sys.argv[1:]))' \
  "${main[@]//\$/\$\$}")
restarts=$((tries - 1))
[ "$tries" -gt 0 ] || restarts=2147483647  # The field has no word for 'always'.

selector='{}' annotations='{}'
if [ -n "$gpus" ]; then
  want gpus "$positive" 'how many GPUs a host has'
  resource=nvidia.com/gpu count=$gpus
  index="metadata.annotations['batch.kubernetes.io/job-completion-index']"
  # Where JobSet says that the first pod can be reached.
  environment='
            {"name": "REST_COORDINATOR", "value": "'$name-host-0-0.$name':8476"},
            {"name": "REST_NUM_PROCESSES", "value": "'$hosts'"},
            {"name": "REST_PROCESS_ID",
             "valueFrom": {"fieldRef": {"fieldPath": "'$index'"}}}'
else
  want tpu "[a-z0-9-]+,$positive(x$positive){1,2},[1-9]" \
    'like tpu-v5-lite-podslice,4x8,4'
  IFS=, read -r kind topology count <<< "$tpu"
  chips=$((${topology//x/*}))
  [ "$chips" -eq $((hosts * count)) ] ||
    refuse "--hosts must be $chips / $count for $topology, got '$hosts'."
  resource=google.com/tpu
  selector='{"cloud.google.com/gke-tpu-accelerator": "'$kind'",
          "cloud.google.com/gke-tpu-topology": "'$topology'"}'
  # All hosts in one node pool, which is one slice.
  annotations='{"alpha.jobset.sigs.k8s.io/exclusive-topology":
    "cloud.google.com/gke-nodepool"}'
  environment='{"name": "REST_DISTRIBUTED", "value": "auto"}'
fi

# Why these fields:
#   backoffLimit 0           One lost pod ends the attempt of all of them.
#   podFailurePolicy         rest.main's own verdicts are final.
#   shareProcessNamespace    Something must reap what the verifiers kill.
#   terminationGracePeriod.. Five minutes to save after SIGTERM.
#   /dev/shm                 The default of 64 MB is too small for NCCL.
manifest=$(cat << END
{
  "apiVersion": "jobset.x-k8s.io/v1alpha2",
  "kind": "JobSet",
  "metadata": {"name": "$name", "annotations": $annotations},
  "spec": {
    "failurePolicy": {"maxRestarts": $restarts, "rules": [
      {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    ]},
    "replicatedJobs": [{"name": "host", "replicas": 1, "template": {"spec": {
      "completionMode": "Indexed",
      "completions": $hosts,
      "parallelism": $hosts,
      "backoffLimit": 0,
      "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes":
        {"containerName": "rest", "operator": "In", "values": [1, 2]}
      }]},
      "template": {"spec": {
        "restartPolicy": "Never",
        "shareProcessNamespace": true,
        "terminationGracePeriodSeconds": 300,
        "nodeSelector": $selector,
        "containers": [{
          "name": "rest",
          "image": "$image",
          "command": $command,
          "env": [$environment],
          "resources": {"limits": {"$resource": $count}},
          "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}]
        }],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
      }}
    }}}]
  }
}
END
)
if $dry_run; then
  printf "kubectl create --filename=- << 'END'\n%s\nEND\n" "$manifest"
else
  kubectl create --filename=- <<< "$manifest"
fi
