// Counts what passes pods' interfaces. What the fast path leads to a pod does not pass these: it counts that itself (`FLOWS` in fastpath.c).

// Pods' packets have their sockets here; what comes to a pod has none.
#define ASKED
#include "flows.h"

// At the ingress of the node's end: from the pod.
SEC("classifier") int podnet_seen_out(struct __sk_buff *skb)
{
    count_flow(skb, skb->ifindex, 0);
    return TC_ACT_UNSPEC;
}

// At its egress: to the pod.
SEC("classifier") int podnet_seen_in(struct __sk_buff *skb)
{
    count_flow(skb, skb->ifindex, 1);
    return TC_ACT_UNSPEC;
}
