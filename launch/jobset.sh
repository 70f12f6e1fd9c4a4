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
#   --tries=N        Start at most N times. Default 0: no limit.
#   --python=PATH    The interpreter in the image. Default python.
#   --dry_run        Print what would be run, and touch nothing.

set -euo pipefail
# shellcheck source=launch/shared.sh
. "$(dirname "$0")/shared.sh"

name='' image='' hosts='' gpus='' tpu='' dry_run=false
while [ $# -gt 0 ]; do
  case $1 in
    --help) usage && exit 0 ;;
    --dry_run) dry_run=true ;;
    --name=*) name=${1#*=} ;;
    --image=*) image=${1#*=} ;;
    --hosts=*) hosts=${1#*=} ;;
    --gpus=*) gpus=${1#*=} ;;
    --tpu=*) tpu=${1#*=} ;;
    --tries=*) tries=${1#*=} ;;
    --python=*) python=${1#*=} ;;
    --) shift && break ;;
    *) refuse "unknown argument '$1'; flags of rest.main go after --." ;;
  esac
  shift
done

need --name "$name" 'what to call the JobSet'
need --image "$image" 'the container image with rest'
need --hosts "$hosts" 'how many hosts to run on'
need_number --hosts "$hosts" 1
[[ $name =~ ^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$ ]] ||
  refuse "--name must be a-z, 0-9 and -, at most 40 characters, got '$name'."
[ -n "$gpus$tpu" ] || refuse '--gpus or --tpu is missing: what a host has.'
[ -z "$gpus" ] || [ -z "$tpu" ] || refuse '--gpus and --tpu exclude each other.'
check_common "$@"
need_workdir "$@"

# Prints $1 as a JSON string. Control characters have no place in arguments.
json() {
  local text=$1
  [[ $text != *[[:cntrl:]]* ]] ||
    refuse "an argument holds a control character: $(quote "$text")"
  text=${text//\\/"\\\\"}
  printf '"%s"' "${text//\"/"\\\""}"
}

# Prints the words as a JSON list. Kubernetes reads $ as the start of a variable
# and $$ as a $.
json_list() {
  local word list=''
  for word in "$@"; do
    list+="${list:+, }$(json "${word//\$/"\$\$"}")" || exit
  done
  printf '[%s]' "$list"
}

# Prints the entry of environment variable $1 with value $2.
variable() {
  printf '\n              {"name": "%s", "value": "%s"}' "$1" "$2"
}

image_json=$(json "$image")
command=$(json_list "$python" -m rest.main "$@")
restarts=$((tries - 1))
[ "$tries" -gt 0 ] || restarts=2147483647  # The field has no word for 'always'.

if [ -n "$gpus" ]; then
  need_number --gpus "$gpus" 1
  resource=nvidia.com/gpu count=$gpus selector='{}' annotations='{}'
  # Where JobSet says that the first pod can be reached.
  environment=$(variable REST_COORDINATOR "$name-host-0-0.$name:8476"),
  environment+=$(variable REST_NUM_PROCESSES "$hosts"),
  index="metadata.annotations['batch.kubernetes.io/job-completion-index']"
  environment+='
              {"name": "REST_PROCESS_ID",
               "valueFrom": {"fieldRef": {"fieldPath": "'$index'"}}}'
else
  side='[1-9][0-9]{0,3}'
  [[ $tpu =~ ^([a-z0-9-]+),($side(x$side){1,2}),([1-9])$ ]] ||
    refuse "--tpu must look like tpu-v5-lite-podslice,4x8,4, got '$tpu'."
  kind=${BASH_REMATCH[1]} topology=${BASH_REMATCH[2]} count=${BASH_REMATCH[4]}
  chips=$((${topology//x/*}))
  [ "$chips" -eq $((hosts * count)) ] ||
    refuse "--hosts must be $chips / $count for $topology, got '$hosts'."
  resource=google.com/tpu
  selector='{
            "cloud.google.com/gke-tpu-accelerator": "'$kind'",
            "cloud.google.com/gke-tpu-topology": "'$topology'"
          }'
  # All hosts in one node pool, which is one slice.
  annotations='{
      "alpha.jobset.sigs.k8s.io/exclusive-topology":
        "cloud.google.com/gke-nodepool"
    }'
  environment=$(variable REST_DISTRIBUTED auto)
fi

# Why these fields:
#   backoffLimit 0           One lost pod ends the attempt of all of them.
#   podFailurePolicy         rest.main's own verdicts are final.
#   shareProcessNamespace    Something must reap what the verifiers kill.
#   terminationGracePeriod.. Five minutes to save after SIGTERM.
#   /dev/shm                 The default of 64 MB is too small for NCCL.
manifest() {
  cat << END
{
  "apiVersion": "jobset.x-k8s.io/v1alpha2",
  "kind": "JobSet",
  "metadata": {
    "name": "$name",
    "annotations": $annotations
  },
  "spec": {
    "failurePolicy": {
      "maxRestarts": $restarts,
      "rules": [
        {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
      ]
    },
    "replicatedJobs": [{
      "name": "host",
      "replicas": 1,
      "template": {"spec": {
        "completionMode": "Indexed",
        "completions": $hosts,
        "parallelism": $hosts,
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [{
          "action": "FailJob",
          "onExitCodes":
            {"containerName": "rest", "operator": "In", "values": [1, 2]}
        }]},
        "template": {"spec": {
          "restartPolicy": "Never",
          "shareProcessNamespace": true,
          "terminationGracePeriodSeconds": 300,
          "nodeSelector": $selector,
          "containers": [{
            "name": "rest",
            "image": $image_json,
            "command": $command,
            "env": [$environment
            ],
            "resources": {"limits": {"$resource": $count}},
            "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}]
          }],
          "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
        }}
      }}
    }]
  }
}
END
}

kubectl=(kubectl create --filename=-)
if $dry_run; then
  printf "%s << 'END'\n" "$(quote "${kubectl[@]}")"
  manifest
  echo END
  exit
fi
manifest | "${kubectl[@]}"
