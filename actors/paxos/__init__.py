"""Multi-Paxos: proposers, acceptors, their ballots and quorums."""
