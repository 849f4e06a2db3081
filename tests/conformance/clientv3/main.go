// Drives a running cluster with etcd's own Go client, clientv3 3.4, and its package concurrency.
//
// usage: clientv3 ENDPOINTS (host:port, comma separated)
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
	"go.etcd.io/etcd/clientv3/namespace"
	"go.etcd.io/etcd/etcdserver/api/v3rpc/rpctypes"
	"go.etcd.io/etcd/mvcc/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

const patience = 60 * time.Second
const lineMax = 1000

var checks int

// What the server answers, for `cargo xtask conformance` to compare with what etcd answers.
var answers *os.File

// What runs meanwhile takes turns that differ from run to run.
var paused bool

// One step of the transcript.
func show(name string, value interface{}) {
	if answers == nil || paused {
		return
	}
	var out bytes.Buffer
	for _, line := range append([]string{"== " + name}, strings.Split(fmt.Sprint(value), "\n")...) {
		if len(line) > lineMax {
			line = fmt.Sprintf("%s... %d characters", line[:lineMax], len(line))
		}
		fmt.Fprintln(&out, line)
	}
	_, err := answers.Write(out.Bytes())
	must("write answers", err)
}

// Below the retries of the client: what goes over the wire.
func record(ctx context.Context, method string, request, answer interface{}, conn *grpc.ClientConn,
	invoker grpc.UnaryInvoker, options ...grpc.CallOption) error {
	err := invoker(ctx, method, request, answer, conn, options...)
	name := strings.ReplaceAll(fmt.Sprintf("%s %v", method, request), "\n", " ")
	if err != nil {
		show(name, fmt.Sprintf("%s %s", status.Code(err), status.Convert(err).Message()))
	} else {
		show(name, answer)
	}
	return err
}

// One check; the first that fails ends the run.
func same(name string, expected, actual interface{}) {
	if !reflect.DeepEqual(expected, actual) {
		fmt.Printf("FAIL %s: expected %v, got %v\n", name, expected, actual)
		os.Exit(1)
	}
	checks++
}

func must(name string, err error) {
	if err != nil {
		fmt.Printf("FAIL %s: %v\n", name, err)
		os.Exit(1)
	}
}

func values(kvs []*mvccpb.KeyValue) []string {
	found := []string{}
	for _, kv := range kvs {
		found = append(found, string(kv.Key)+"="+string(kv.Value))
	}
	return found
}

func main() {
	if len(os.Args) != 2 {
		fmt.Println("usage: clientv3 ENDPOINTS")
		os.Exit(2)
	}
	if path := os.Getenv("ANSWERS"); path != "" {
		file, err := os.Create(path)
		must("create answers", err)
		answers = file
	}
	client := connect(strings.Split(os.Args[1], ",")...)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	defer cancel()
	keys(ctx, client)
	transactions(ctx, client)
	watches(ctx, client)
	leases(ctx, client)
	paused = true
	mutexes(ctx, client)
	elections(ctx, client)
	memory(ctx)
	paused = false
	upkeep(ctx, client)
	fmt.Printf("clientv3: %d checks passed\n", checks)
}

func connect(endpoints ...string) *clientv3.Client {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   endpoints,
		DialTimeout: 10 * time.Second,
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(record)},
	})
	must("connect", err)
	return client
}

func keys(ctx context.Context, client *clientv3.Client) {
	put, err := client.Put(ctx, "go/a", "1")
	must("put", err)
	again, err := client.Put(ctx, "go/a", "2", clientv3.WithPrevKV())
	must("put again", err)
	same("revision moves by one", put.Header.Revision+1, again.Header.Revision)
	same("previous value", "1", string(again.PrevKv.Value))
	for _, name := range []string{"b", "c", "d"} {
		_, err = client.Put(ctx, "go/"+name, name)
		must("put "+name, err)
	}
	all, err := client.Get(ctx, "go/", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
	must("get prefix", err)
	same("sorted", []string{"go/d=d", "go/c=c", "go/b=b", "go/a=2"}, values(all.Kvs))
	some, err := client.Get(ctx, "go/", clientv3.WithPrefix(), clientv3.WithLimit(2))
	must("get limit", err)
	same("limited", []string{"go/a=2", "go/b=b"}, values(some.Kvs))
	same("more", true, some.More)
	same("count", int64(4), some.Count)
	past, err := client.Get(ctx, "go/a", clientv3.WithRev(put.Header.Revision))
	must("get past", err)
	same("past", []string{"go/a=1"}, values(past.Kvs))
	stale, err := client.Get(ctx, "go/a", clientv3.WithSerializable())
	must("get serializable", err)
	same("serializable", 1, len(stale.Kvs))
	first, err := client.Get(ctx, "go/", clientv3.WithFirstCreate()...)
	must("get first create", err)
	same("first created", []string{"go/a=2"}, values(first.Kvs))
	deleted, err := client.Delete(ctx, "go/", clientv3.WithPrefix(), clientv3.WithPrevKV())
	must("delete", err)
	same("deleted", int64(4), deleted.Deleted)
	same("deleted values", 4, len(deleted.PrevKvs))
	_, err = client.Get(ctx, "go/a", clientv3.WithRev(deleted.Header.Revision+1000))
	same("future revision", rpctypes.ErrFutureRev, err)
	_, err = client.Put(ctx, "", "x")
	same("empty key", rpctypes.ErrEmptyKey, err)
	_, err = client.Compact(ctx, deleted.Header.Revision)
	must("compact", err)
	_, err = client.Get(ctx, "go/a", clientv3.WithRev(put.Header.Revision))
	same("compacted revision", rpctypes.ErrCompacted, err)
	inside := namespace.NewKV(client.KV, "go/space/")
	_, err = inside.Put(ctx, "k", "v")
	must("namespace put", err)
	outside, err := client.Get(ctx, "go/space/k")
	must("namespace get", err)
	same("namespace", []string{"go/space/k=v"}, values(outside.Kvs))
}

func transactions(ctx context.Context, client *clientv3.Client) {
	attempt := func() *clientv3.TxnResponse {
		answer, err := client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision("go/txn"), "=", 0)).
			Then(clientv3.OpPut("go/txn", "made"), clientv3.OpGet("go/txn")).
			Else(clientv3.OpGet("go/txn"), clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpDelete("go/txn")}, nil)).
			Commit()
		must("txn", err)
		return answer
	}
	made := attempt()
	same("txn succeeded", true, made.Succeeded)
	same("txn reads its write", []string{"go/txn=made"}, values(made.Responses[1].GetResponseRange().Kvs))
	found := attempt()
	same("txn did not succeed", false, found.Succeeded)
	inner := found.Responses[1].GetResponseTxn()
	same("nested delete", int64(1), inner.Responses[0].GetResponseDeleteRange().Deleted)
	_, err := client.Txn(ctx).Then(clientv3.OpPut("go/twice", "1"), clientv3.OpPut("go/twice", "2")).Commit()
	same("duplicate key", rpctypes.ErrDuplicateKey, err)
}

func watches(ctx context.Context, client *clientv3.Client) {
	_, err := client.Put(ctx, "go/watch/a", "0")
	must("put before watch", err)
	start, err := client.Put(ctx, "go/watch/a", "1")
	must("put for watch", err)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	events := client.Watch(watching, "go/watch/", clientv3.WithPrefix(), clientv3.WithPrevKV(),
		clientv3.WithRev(start.Header.Revision))
	_, err = client.Put(ctx, "go/watch/b", "2")
	must("put while watching", err)
	_, err = client.Delete(ctx, "go/watch/a")
	must("delete while watching", err)
	seen := []string{}
	for len(seen) < 3 {
		batch := <-events
		must("watch", batch.Err())
		for _, event := range batch.Events {
			previous := ""
			if event.PrevKv != nil {
				previous = string(event.PrevKv.Value)
			}
			show("event", event)
			seen = append(seen, fmt.Sprintf("%s %s %s<%s", event.Type, event.Kv.Key, event.Kv.Value, previous))
		}
	}
	same("events", []string{"PUT go/watch/a 1<0", "PUT go/watch/b 2<", "DELETE go/watch/a <1"}, seen)
	must("request progress", client.RequestProgress(watching))
	_, err = client.Compact(ctx, start.Header.Revision)
	must("compact under watch", err)
	late := <-client.Watch(ctx, "go/watch/a", clientv3.WithRev(1))
	same("watch of what is compacted", rpctypes.ErrCompacted, late.Err())
	same("compact revision", start.Header.Revision, late.CompactRevision)
	show("watch of what is compacted", fmt.Sprintf("%v %v %v", late.Canceled, late.CompactRevision, late.Err()))
	// Nothing but progress: the filter holds back the put.
	filtered := client.Watch(watching, "go/filtered", clientv3.WithFilterPut())
	_, err = client.Put(ctx, "go/filtered", "x")
	must("put filtered", err)
	_, err = client.Delete(ctx, "go/filtered")
	must("delete filtered", err)
	batch := <-filtered
	same("filtered", clientv3.EventTypeDelete, batch.Events[0].Type)
}

func leases(ctx context.Context, client *clientv3.Client) {
	granted, err := client.Grant(ctx, 60)
	must("grant", err)
	_, err = client.Put(ctx, "go/lease/a", "x", clientv3.WithLease(granted.ID))
	must("put with lease", err)
	times, err := client.TimeToLive(ctx, granted.ID, clientv3.WithAttachedKeys())
	must("time to live", err)
	same("granted", int64(60), times.GrantedTTL)
	same("attached", "go/lease/a", string(times.Keys[0]))
	alive, err := client.KeepAliveOnce(ctx, granted.ID)
	must("keep alive", err)
	same("kept alive", int64(60), alive.TTL)
	listed, err := client.Leases(ctx)
	must("leases", err)
	same("listed", true, len(listed.Leases) > 0)
	_, err = client.Revoke(ctx, granted.ID)
	must("revoke", err)
	gone, err := client.Get(ctx, "go/lease/a")
	must("get after revoke", err)
	same("gone with its lease", 0, len(gone.Kvs))
	_, err = client.Revoke(ctx, granted.ID)
	same("revoke again", rpctypes.ErrLeaseNotFound, err)
	short, err := client.Grant(ctx, 1)
	must("grant short", err)
	events := client.Watch(ctx, "go/lease/short", clientv3.WithFilterPut())
	_, err = client.Put(ctx, "go/lease/short", "x", clientv3.WithLease(short.ID))
	must("put with short lease", err)
	ended := <-events
	same("expired", clientv3.EventTypeDelete, ended.Events[0].Type)
}

// Four sessions take one lock a few times each; the count in the middle must not lose any.
func mutexes(ctx context.Context, client *clientv3.Client) {
	var group sync.WaitGroup
	const sessions, rounds = 4, 5
	counter := 0
	for at := 0; at < sessions; at++ {
		group.Add(1)
		go func() {
			defer group.Done()
			session, err := concurrency.NewSession(client, concurrency.WithTTL(30))
			must("session", err)
			defer session.Close()
			mutex := concurrency.NewMutex(session, "go/mutex")
			for round := 0; round < rounds; round++ {
				must("lock", mutex.Lock(ctx))
				held, err := client.Txn(ctx).If(mutex.IsOwner()).Then(clientv3.OpGet("go/mutex")).Commit()
				must("is owner", err)
				if !held.Succeeded {
					must("is owner", fmt.Errorf("the holder does not hold the lock"))
				}
				counter++
				must("unlock", mutex.Unlock(ctx))
			}
		}()
	}
	group.Wait()
	same("increments under the lock", sessions*rounds, counter)
}

func elections(ctx context.Context, client *clientv3.Client) {
	candidate := func() (*concurrency.Session, *concurrency.Election) {
		session, err := concurrency.NewSession(client, concurrency.WithTTL(30))
		must("session", err)
		return session, concurrency.NewElection(session, "go/election")
	}
	one, first := candidate()
	two, second := candidate()
	defer two.Close()
	must("campaign", first.Campaign(ctx, "one"))
	leader, err := second.Leader(ctx)
	must("leader", err)
	same("leader", []string{"one"}, []string{string(leader.Kvs[0].Value)})
	must("proclaim", first.Proclaim(ctx, "one again"))
	won := make(chan error, 1)
	go func() { won <- second.Campaign(ctx, "two") }()
	// The end of the session ends the leadership.
	must("close", one.Close())
	must("campaign of the other", <-won)
	leader, err = second.Leader(ctx)
	must("next leader", err)
	same("next leader", "two", string(leader.Kvs[0].Value))
	must("resign", second.Resign(ctx))
	_, err = second.Leader(ctx)
	same("no leader", concurrency.ErrElectionNoLeader, err)
}

// Software transactional memory: transfers between two accounts by four at once keep the sum. All through one member:
// after its first read the package asks for that revision with serializable reads, and a member of etcd that has not
// reached it calls it a future revision, which the package does not retry.
func memory(ctx context.Context) {
	client := connect(strings.Split(os.Args[1], ",")[0])
	defer client.Close()
	_, err := client.Put(ctx, "go/stm/a", "100")
	must("put a", err)
	_, err = client.Put(ctx, "go/stm/b", "100")
	must("put b", err)
	var group sync.WaitGroup
	for at := 0; at < 4; at++ {
		group.Add(1)
		go func(amount int) {
			defer group.Done()
			for round := 0; round < 5; round++ {
				_, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
					var a, b int
					fmt.Sscan(stm.Get("go/stm/a"), &a)
					fmt.Sscan(stm.Get("go/stm/b"), &b)
					stm.Put("go/stm/a", fmt.Sprint(a-amount))
					stm.Put("go/stm/b", fmt.Sprint(b+amount))
					return nil
				}, concurrency.WithAbortContext(ctx))
				must("stm", err)
			}
		}(at + 1)
	}
	group.Wait()
	both, err := client.Get(ctx, "go/stm/", clientv3.WithPrefix())
	must("get accounts", err)
	same("accounts", []string{"go/stm/a=50", "go/stm/b=150"}, values(both.Kvs))
}

func upkeep(ctx context.Context, client *clientv3.Client) {
	// Members come in the order of their ids, which are random; what members hold is hashed in a way of their own.
	paused = true
	defer func() { paused = false }()
	members, err := client.MemberList(ctx)
	must("member list", err)
	same("members", 3, len(members.Members))
	status, err := client.Status(ctx, client.Endpoints()[0])
	must("status", err)
	same("has a leader", true, status.Leader != 0)
	alarms, err := client.AlarmList(ctx)
	must("alarm list", err)
	same("alarms", 0, len(alarms.Alarms))
	hashes := map[uint32]bool{}
	for _, endpoint := range client.Endpoints() {
		hash, err := client.HashKV(ctx, endpoint, status.Header.Revision)
		must("hash kv", err)
		hashes[hash.Hash] = true
	}
	same("all hold the same", 1, len(hashes))
}
