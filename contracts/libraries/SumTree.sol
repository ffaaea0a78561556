// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";

/// @title A sum tree of weights that remembers its past
/// @notice Leaves are numbered from zero and never reused; an inner node holds the sum of its two children. Every node is a
/// history keyed by block, so that a draw can be made from the weights as they stood at a block that is over: what joins,
/// leaves or changes afterwards changes nothing in it. Setting a weight and drawing both take O(log n) nodes.
library SumTree {
    using Checkpoints for Checkpoints.Trace208;

    bytes32 internal constant DRAW_TAG = keccak256("interlock.draw.v1");
    /// 2^16 leaves at most.
    uint256 internal constant MAX_HEIGHT = 16;

    /// @param height History of the height: 0 for one leaf, doubling its capacity with each step.
    /// @param leaves How many leaves were ever added.
    /// @param nodes Histories of sums by node; see {_key}.
    struct Tree {
        Checkpoints.Trace208 height;
        uint256 leaves;
        mapping(uint256 key => Checkpoints.Trace208) nodes;
    }

    /// @notice Leaves that a draw passes over, with their weights at the draw's block.
    struct Exclusions {
        uint256 count;
        uint256[] leaves;
        uint256[] weights;
    }

    error TreeFull(uint256 capacity);

    /// @notice Adds a leaf of weight zero and returns its number.
    function addLeaf(Tree storage self) internal returns (uint256 leaf) {
        leaf = self.leaves++;
        uint256 height = self.height.latest();
        if (leaf >> height == 0) return leaf;
        if (height == MAX_HEIGHT) revert TreeFull(1 << MAX_HEIGHT);
        // The new root starts with the old root's sum, which is its left child.
        uint48 now_ = uint48(block.number);
        self.nodes[_key(height + 1, 0)].push(now_, self.nodes[_key(height, 0)].latest());
        self.height.push(now_, uint208(height + 1));
    }

    /// @notice Sets the weight of a leaf as of this block.
    function set(Tree storage self, uint256 leaf, uint208 weight) internal {
        uint208 before = self.nodes[_key(0, leaf)].latest();
        if (before == weight) return;
        uint48 now_ = uint48(block.number);
        uint256 height = self.height.latest();
        for (uint256 level = 0; level <= height; ++level) {
            Checkpoints.Trace208 storage node = self.nodes[_key(level, leaf >> level)];
            node.push(now_, node.latest() - before + weight);
        }
    }

    /// @notice The weight of a leaf as it stood at the end of a past block.
    function weightAt(Tree storage self, uint256 leaf, uint48 blockNumber) internal view returns (uint208) {
        return self.nodes[_key(0, leaf)].upperLookupRecent(blockNumber);
    }

    /// @notice The sum of all weights as it stood at the end of a past block.
    function totalAt(Tree storage self, uint48 blockNumber) internal view returns (uint256) {
        return self.nodes[_key(self.height.upperLookupRecent(blockNumber), 0)].upperLookupRecent(blockNumber);
    }

    /// @notice Draws up to `count` distinct leaves in proportion to their weights at the end of a past block. Draw i falls on
    /// `keccak256(abi.encode(DRAW_TAG, seed, i)) mod remaining weight`; fewer come back where fewer have weight.
    /// @param excludedLeaves Leaves to leave out; repetitions count once.
    function draw(
        Tree storage self,
        uint48 blockNumber,
        bytes32 seed,
        uint256 count,
        uint256[] memory excludedLeaves
    ) internal view returns (uint256[] memory leaves, uint256[] memory weights) {
        uint256 remaining = totalAt(self, blockNumber);
        Exclusions memory out = Exclusions(
            0, new uint256[](excludedLeaves.length + count), new uint256[](excludedLeaves.length + count)
        );
        for (uint256 i = 0; i < excludedLeaves.length; ++i) {
            remaining -= _exclude(self, blockNumber, out, excludedLeaves[i]);
        }
        leaves = new uint256[](count);
        weights = new uint256[](count);
        uint256 drawn;
        for (; drawn < count && remaining != 0; ++drawn) {
            uint256 point = uint256(keccak256(abi.encode(DRAW_TAG, seed, drawn))) % remaining;
            leaves[drawn] = leafAt(self, point, blockNumber, out);
            weights[drawn] = _exclude(self, blockNumber, out, leaves[drawn]);
            remaining -= weights[drawn];
        }
        assembly ("memory-safe") {
            mstore(leaves, drawn)
            mstore(weights, drawn)
        }
    }

    /// @notice Finds the leaf at `point` on the line on which the weights of all leaves, but for the excluded ones, lie end
    /// to end in the order of their numbers.
    /// @param point Below the total less the excluded weights.
    function leafAt(Tree storage self, uint256 point, uint48 blockNumber, Exclusions memory excluded)
        internal
        view
        returns (uint256 leaf)
    {
        uint256 level = self.height.upperLookupRecent(blockNumber);
        while (level > 0) {
            --level;
            leaf <<= 1;
            uint256 left = self.nodes[_key(level, leaf)].upperLookupRecent(blockNumber);
            left -= _excludedUnder(excluded, level, leaf);
            if (point >= left) {
                point -= left;
                ++leaf;
            }
        }
    }

    /// Returns the weight that the leaf takes out of the draw: nothing, if it was out already.
    function _exclude(Tree storage self, uint48 blockNumber, Exclusions memory out, uint256 leaf)
        private
        view
        returns (uint256 weight)
    {
        weight = weightAt(self, leaf, blockNumber);
        if (weight == 0 || _excludedUnder(out, 0, leaf) != 0) return 0;
        (out.leaves[out.count], out.weights[out.count]) = (leaf, weight);
        ++out.count;
    }

    /// The weights of the excluded leaves below a node. A draw that passes over all members of a large job comes here for
    /// each of its levels: written out, since the compiler's checks of bounds and sums would cost most of the draw.
    function _excludedUnder(Exclusions memory excluded, uint256 level, uint256 place)
        private
        pure
        returns (uint256 sum)
    {
        (uint256[] memory leaves, uint256[] memory weights) = (excluded.leaves, excluded.weights);
        uint256 count = excluded.count;
        assembly ("memory-safe") {
            let toWeight := sub(weights, leaves)
            let leaf := add(leaves, 32)
            for { let end := add(leaf, mul(count, 32)) } lt(leaf, end) { leaf := add(leaf, 32) } {
                if eq(shr(level, mload(leaf)), place) { sum := add(sum, mload(add(leaf, toWeight))) }
            }
        }
    }

    /// A node is named by its level (0 for leaves) and its place within the level.
    function _key(uint256 level, uint256 place) private pure returns (uint256) {
        return (level << 32) | place;
    }
}
