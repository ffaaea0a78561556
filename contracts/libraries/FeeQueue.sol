// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// @title A queue of jobs by fee, at a cost that does not grow with its length
/// @notice Fees fall into 256 buckets, four to the octave; within a bucket the first comes first. A bitmap finds the highest
/// bucket that is not empty. Adding and taking touch a few words, however many jobs wait: nobody can make the queue
/// unusable by filling it.
library FeeQueue {
    uint256 internal constant BUCKETS = 256;
    uint256 private constant BUCKETS_PER_OCTAVE_BITS = 2;

    struct Bucket {
        uint128 first;
        uint128 end;
        mapping(uint256 place => bytes32) entries;
    }

    /// @param occupied Bit b is set while bucket b holds an entry.
    /// @param length Entries in all buckets.
    struct Queue {
        uint256 occupied;
        uint256 length;
        mapping(uint256 number => Bucket) buckets;
    }

    /// @notice The bucket of a fee: four times its binary logarithm, to the next two bits; 255 from 2^63 · 1.75 on.
    function bucketOf(uint256 fee) internal pure returns (uint256) {
        uint256 octave = Math.log2(fee);
        uint256 quarter = octave < BUCKETS_PER_OCTAVE_BITS
            ? (fee << (BUCKETS_PER_OCTAVE_BITS - octave)) & 3
            : (fee >> (octave - BUCKETS_PER_OCTAVE_BITS)) & 3;
        return Math.min((octave << BUCKETS_PER_OCTAVE_BITS) | quarter, BUCKETS - 1);
    }

    /// @notice Adds an entry behind all others of its bucket, and returns the bucket.
    function push(Queue storage self, uint256 fee, bytes32 entry) internal returns (uint256 number) {
        number = bucketOf(fee);
        Bucket storage bucket = self.buckets[number];
        bucket.entries[bucket.end++] = entry;
        self.occupied |= 1 << number;
        ++self.length;
    }

    /// @notice Takes the first entry out of the highest bucket. The queue must not be empty.
    function pop(Queue storage self) internal returns (bytes32 entry) {
        uint256 number = Math.log2(self.occupied);
        Bucket storage bucket = self.buckets[number];
        entry = bucket.entries[bucket.first];
        delete bucket.entries[bucket.first++];
        if (bucket.first == bucket.end) self.occupied ^= 1 << number;
        --self.length;
    }
}
